//! Pages in a real browser on a sidecar's host can neither read its admin endpoint nor change anything.

use std::io::Write;
use std::time::Duration;

use crate::admin::expect_no_drain;
use crate::harness::{Load, Mesh, Need, Origin, need, program, run, service};

/// The attempts of a page of `http://evil.test`, and what it can read. `ADMIN` is the endpoint; `NAME` the
/// same under a name of the attacker's.
const PAGE: &str = r#"<!doctype html><body>
<iframe name="sink"></iframe>
<form id="f" target="sink" method="post" action="http://ADMIN/drain"><input name="a" value="b"></form>
<form id="g" target="sink" method="post" action="http://NAME/drain"></form>
<img src="http://ADMIN/metrics"><iframe src="http://ADMIN/config_dump"></iframe>
<pre id="seen">nothing yet</pre>
<script>
const tries = [];
for (const host of ["ADMIN", "NAME"]) {
  for (const mode of ["no-cors", "cors"]) {
    tries.push([`http://${host}/drain`, { method: "POST", mode }]);
    tries.push([`http://${host}/drain`, { method: "POST", mode, body: "a=b", keepalive: true }]);
    tries.push([`http://${host}/config_dump`, { mode }]);
    tries.push([`http://${host}/metrics`, { mode, cache: "force-cache" }]);
  }
  tries.push([`http://${host}/logging`, { method: "PUT", mode: "cors", body: "trace" }]);
  tries.push([`http://${host}/drain`, { method: "POST", mode: "cors", headers: { "x-a": "b" } }]);
}
(async () => {
  const seen = [];
  for (const [url, how] of tries) {
    try {
      const answer = await fetch(url, how);
      seen.push(`type=${answer.type} status=${answer.status} read=${(await answer.text()).length}`);
    } catch (error) {
      seen.push("failed");
    }
  }
  navigator.sendBeacon("http://ADMIN/drain", "a");
  document.getElementById("f").submit();
  document.getElementById("g").submit();
  await new Promise((done) => setTimeout(done, 500));
  document.getElementById("seen").textContent = `tried ${seen.length}: ` + seen.join("; ");
})();
</script></body>"#;

#[test]
fn a_page_in_a_browser_on_this_host_neither_drains_nor_reads() {
    if !need(&[Need::Program("chromium")]) {
        return;
    }
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    mesh.apply(&service("orders", 80, "http"));
    let _orders = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .start();
    // The weaker setting, so that only the page's own requests give it away.
    let mut shop = mesh
        .sidecar("shop")
        .calls("orders:80")
        .admin_setting("changes: loopback")
        .start();
    shop.wait_endpoints("orders:80", 1);
    let load = Load::start(
        shop.listener("orders:80"),
        "/",
        2,
        Duration::from_millis(20),
    );
    let admin = shop.admin();
    let name = format!("rebound.test:{}", admin.port());
    let page = PAGE
        .replace("ADMIN", &admin.to_string())
        .replace("NAME", &name);
    let attacker = Origin::http(mesh.address(), move |_, out| {
        let length = page.len();
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {length}\r\n\r\n"
        );
        out.write_all(head.as_bytes())?;
        out.write_all(page.as_bytes())?;
        Ok(true)
    });
    let rules = format!(
        "MAP evil.test {}, MAP rebound.test {}",
        attacker.address.ip(),
        admin.ip()
    );
    let browse = |profile: &str, url: &str| {
        let mut browser = program("chromium");
        browser
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
            ])
            .args(["--no-first-run", "--disable-background-networking"])
            .args(["--disable-component-update", "--disable-sync"])
            .arg(format!(
                "--user-data-dir={}",
                mesh.folder().join(profile).display()
            ))
            .arg(format!("--host-resolver-rules={rules}"))
            .args(["--virtual-time-budget=5000", "--dump-dom", url]);
        run(&mut browser).ok()
    };

    let seen = browse(
        "attack",
        &format!("http://evil.test:{}/", attacker.address.port()),
    );
    assert!(seen.contains("tried 20: "), "{seen}");
    let tried = seen.split("tried 20: ").nth(1).unwrap();
    let tried = tried.split('<').next().unwrap();
    for outcome in tried.split("; ") {
        // A page cannot read an opaque answer.
        let is_nothing = outcome == "failed" || outcome == "type=opaque status=0 read=0";
        assert!(is_nothing, "{outcome} in {seen}");
    }
    expect_no_drain(&shop);
    let filter = shop.admin_get("/logging").unwrap().text();
    assert!(!filter.contains("trace"), "{filter}");

    // A page whose name was pointed here after it was loaded: its browser shows what it reads from there.
    let seen = browse("rebound", &format!("http://{name}/config_dump"));
    assert!(seen.contains("called by localhost"), "{seen}");
    for secret in ["control_plane", "orders", Mesh::DOMAIN] {
        assert!(!seen.contains(secret), "{secret} in {seen}");
    }
    expect_no_drain(&shop);
    load.finish_after(20).expect_all_good(20);
    shop.expect_alive();
}
