"""What scripts/audit finds: python3 -m unittest discover -s scripts"""

import subprocess
import sys
import tempfile
import unittest
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

AUDIT = Path(__file__).with_name("audit")
sys.dont_write_bytecode = True
loader = SourceFileLoader("audit", str(AUDIT))
audit = module_from_spec(spec_from_loader("audit", loader))
loader.exec_module(audit)


def package(name, version, source=audit.CRATES_IO):
    return {"name": name, "version": version, "source": source}


class Requirements(unittest.TestCase):
    def holds(self, version, requirement, expected):
        with self.subTest(version=version, requirement=requirement):
            self.assertEqual(audit.meets(audit.Version(version), requirement), expected)

    def test_requirements_are_read_as_cargo_reads_them(self):
        for version, requirement, expected in [
            ("0.11.13", ">= 0.11.14", False),
            ("0.11.14", ">= 0.11.14", True),
            ("0.9.0", "<0.10", True),
            ("0.10.0", "<0.10", False),
            ("1.2.9", "^1.2.3", True),
            ("2.0.0", "^1.2.3", False),
            ("0.2.9", "^0.2.3", True),
            ("0.3.0", "^0.2.3", False),
            ("0.0.4", "^0.0.3", False),
            ("1.2.9", "~1.2.3", True),
            ("1.3.0", "~1.2.3", False),
            ("1.9.0", "1", True),
            ("1.2.3", "=1.2.3", True),
            ("1.2.4", "=1.2.3", False),
            ("1.2.4", "=1.2", True),
            ("1.2.4", "> 1.2", False),
            ("1.3.0", "> 1.2", True),
            ("1.2.9", "<= 1.2", True),
            ("0.5.1", ">= 0.5.0, < 0.6.0", True),
            ("0.6.0", ">= 0.5.0, < 0.6.0", False),
            ("3.0.0", "*", True),
        ]:
            self.holds(version, requirement, expected)

    def test_a_pre_release_is_older_than_its_release(self):
        for version, requirement, expected in [
            ("1.0.0-rc.1", ">= 1.0.0", False),
            ("1.0.0-rc.2", ">= 1.0.0-rc.1", True),
            ("1.0.0-rc.10", "> 1.0.0-rc.9", True),
            ("1.0.0-beta", "> 1.0.0-9", True),
            ("1.0.0+build", "=1.0.0", True),
            ("2.0.0-rc.1", "^1.0.0", False),
        ]:
            self.holds(version, requirement, expected)

    def test_what_cannot_be_read_is_an_error(self):
        for requirement in ["", "latest", ">=1.x", ">= 1.0.0 < 2"]:
            with self.subTest(requirement), self.assertRaises(ValueError):
                audit.meets(audit.Version("1.0.0"), requirement)


class Licences(unittest.TestCase):
    def test_one_of_a_choice_is_enough_and_all_of_a_sum_are_needed(self):
        for expression, expected in [
            ("MIT", True),
            ("GPL-3.0-only", False),
            ("GPL-3.0-only OR MIT", True),
            ("MIT/Apache-2.0", True),
            ("MIT AND GPL-3.0-only", False),
            ("(GPL-3.0-only OR MIT) AND ISC", True),
            ("GPL-3.0-only OR MIT AND ISC", True),
            ("Apache-2.0 WITH LLVM-exception", False),
        ]:
            with self.subTest(expression):
                self.assertEqual(audit.allows(expression, {"MIT", "ISC", "Apache-2.0"}), expected)

    def test_an_unlisted_licence_and_a_missing_one_are_found(self):
        built = [
            {"name": name, "version": "1.0.0", "licence": licence}
            for name, licence in [("good", "MIT"), ("bad", "GPL-3.0-only"), ("none", "")]
        ]
        found = list(audit.without_licence(built, {"allow": ["MIT"]}))
        self.assertEqual([one.split()[0] for one in found], ["bad", "none"])


class Bans(unittest.TestCase):
    def test_a_banned_crate_is_found_and_the_reason_is_said(self):
        rules = {"deny": [{"name": "ring", "reason": "one provider"}, {"name": "h2", "version": "<0.4.16"}]}
        packages = [package("ring", "0.17.14"), package("h2", "0.4.16"), package("h2", "0.4.15")]
        found = list(audit.banned(packages, rules))
        self.assertEqual(len(found), 2)
        self.assertIn("one provider", found[0])
        self.assertIn("cargo update -p h2", found[1])

    def test_two_versions_of_a_crate_that_may_be_there_once_are_found(self):
        rules = {"deny": [{"name": "rustls", "deny-multiple-versions": True}]}
        one, two = package("rustls", "0.23.46"), package("rustls", "0.24.0")
        self.assertEqual(list(audit.banned([one], rules)), [])
        self.assertEqual(len(list(audit.banned([one, two], rules))), 1)

    def test_a_source_other_than_crates_io_is_found(self):
        packages = [
            package("good", "1.0.0"),
            {"name": "own", "version": "0.1.0"},
            package("forked", "1.0.0", "git+https://example.com/forked?branch=main#0123"),
            package("private", "1.0.0", "registry+https://example.com/index"),
        ]
        found = list(audit.of_unknown_source(packages, {}))
        self.assertEqual([one.split()[0] for one in found], ["forked", "private"])

    def test_a_dependency_on_any_version_is_found(self):
        members = [{"name": "own", "dependencies": [{"name": "any", "req": "*"}, {"name": "path", "req": "*", "path": "/"}]}]
        self.assertEqual(len(list(audit.with_wildcards(members, {"wildcards": "deny"}))), 1)


class Weaknesses(unittest.TestCase):
    ADVISORY = {
        "id": "RUSTSEC-2026-0037",
        "package": "quinn-proto",
        "kind": "vulnerability",
        "patched": [">= 0.11.14"],
        "unaffected": ["< 0.5.0"],
    }

    def found(self, *versions, ignored=()):
        packages = [package("quinn-proto", version) for version in versions]
        return list(audit.weak(packages, [self.ADVISORY], ignored))

    def test_only_versions_that_are_neither_patched_nor_unaffected_are_weak(self):
        (found,) = self.found("0.4.9", "0.11.13", "0.11.14")
        self.assertIn("quinn-proto 0.11.13: RUSTSEC-2026-0037", found)
        self.assertIn("`cargo update -p quinn-proto` to >= 0.11.14", found)

    def test_an_ignored_one_is_not_found(self):
        self.assertEqual(self.found("0.11.13", ignored={"RUSTSEC-2026-0037"}), [])

    def test_a_vulnerable_lock_file_fails_the_command(self):
        text = (audit.ROOT / "Cargo.lock").read_text(encoding="utf-8")
        lock = audit.tomllib.loads(text)
        (version,) = [one["version"] for one in lock["package"] if one["name"] == "quinn-proto"]
        was, is_ = [f'name = "quinn-proto"\nversion = "{one}"' for one in (version, "0.11.13")]
        with tempfile.NamedTemporaryFile("w", suffix=".lock") as file:
            file.write(text.replace(was, is_))
            file.flush()
            done = subprocess.run([AUDIT, file.name], capture_output=True, text=True)
        self.assertEqual(done.returncode, 1)
        self.assertIn("quinn-proto 0.11.13: RUSTSEC-2026-0037", done.stderr)
        self.assertIn("quinn-proto 0.11.13: deny.toml bans quinn-proto <0.11.19", done.stderr)


if __name__ == "__main__":
    unittest.main()
