"""Certificates that no honest CA would issue: `certificates.py OUT --ca DIR --identity URI`.

For each kind a directory OUT/KIND with identity.crt and identity.key. Kinds that need it are signed
by the CA's own issuing key, so that nothing else is wrong with them. Prints the kinds as JSON."""

import argparse
import datetime
import json
import os

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime.datetime.now(datetime.timezone.utc)
MINUTE = datetime.timedelta(minutes=1)


def name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def usage(**true):
    names = (
        "digital_signature content_commitment key_encipherment data_encipherment "
        "key_agreement key_cert_sign crl_sign encipher_only decipher_only"
    )
    return x509.KeyUsage(**{each: true.get(each, False) for each in names.split()})


def authority(common_name, issuer=None):
    """A CA of its own, or below `issuer`."""
    key = ec.generate_private_key(ec.SECP256R1())
    above_name, above_key = (issuer[0].subject, issuer[1]) if issuer else (name(common_name), key)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name(common_name))
        .issuer_name(above_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - 60 * MINUTE)
        .not_valid_after(NOW + 600 * MINUTE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage(key_cert_sign=True, crl_sign=True), critical=True)
        .sign(above_key, hashes.SHA256())
    )
    return certificate, key


def leaf(issuer, uris, **how):
    """A leaf that is right but for what `how` says."""
    key = ec.generate_private_key(ec.SECP256R1())
    signer = issuer or (None, key)
    names = [x509.UniformResourceIdentifier(uri) for uri in uris] + how.get("names", [])
    not_before, not_after = how.get("validity", (-5, 60))
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(how.get("subject", "weft")))
        .issuer_name(issuer[0].subject if issuer else name(how.get("subject", "weft")))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + not_before * MINUTE)
        .not_valid_after(NOW + not_after * MINUTE)
        .add_extension(
            x509.BasicConstraints(ca=how.get("ca", False), path_length=None), critical=True
        )
        .add_extension(how.get("usage", usage(digital_signature=True)), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
            critical=False,
        )
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    certificate = builder.sign(signer[1], hashes.SHA256())
    return certificate, key


def write(folder, kind, made, chain):
    target = os.path.join(folder, kind)
    os.makedirs(target)
    certificate, key = made
    with open(os.path.join(target, "identity.crt"), "wb") as file:
        for each in [certificate, *chain]:
            file.write(each.public_bytes(serialization.Encoding.PEM))
    with open(os.path.join(target, "identity.key"), "wb") as file:
        file.write(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )


def read(folder, part):
    with open(os.path.join(folder, f"{part}.crt"), "rb") as file:
        certificate = x509.load_pem_x509_certificate(file.read())
    with open(os.path.join(folder, f"{part}.key"), "rb") as file:
        key = serialization.load_pem_private_key(file.read(), None)
    return certificate, key


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--ca", required=True)
    parser.add_argument("--identity", required=True)
    options = parser.parse_args()
    issuing = read(options.ca, "issuing")
    uri = options.identity
    other_uri = uri.replace("spiffe://", "spiffe://other-")
    impostor = authority(issuing[0].subject.rfc4514_string().split("=")[-1])
    ours = [issuing[0]]

    kinds = {
        # The control: made here, and right.
        "good": (leaf(issuing, [uri]), ours),
        "self-signed": (leaf(None, [uri]), []),
        "other-ca": (leaf(impostor, [uri]), [impostor[0]]),
        "no-intermediate-of-ours": (leaf(impostor, [uri]), ours),
        "expired": (leaf(issuing, [uri], validity=(-60, -1)), ours),
        "not-yet-valid": (leaf(issuing, [uri], validity=(1, 60)), ours),
        "two-uris": (leaf(issuing, [uri, uri + "2"]), ours),
        "no-uri": (leaf(issuing, [], names=[x509.DNSName("orders.shop")]), ours),
        "name-only-in-subject": (leaf(issuing, [], subject=uri), ours),
        "other-trust-domain": (leaf(issuing, [other_uri]), ours),
        "no-path": (leaf(issuing, [uri.split("/ns/")[0]]), ours),
        "query": (leaf(issuing, [uri + "?a=b"]), ours),
        "ca-leaf": (
            leaf(issuing, [uri], ca=True, usage=usage(digital_signature=True, key_cert_sign=True)),
            ours,
        ),
        "signs-certificates": (
            leaf(issuing, [uri], usage=usage(digital_signature=True, key_cert_sign=True)),
            ours,
        ),
        "no-digital-signature": (leaf(issuing, [uri], usage=usage(key_agreement=True)), ours),
    }
    # A leaf of the mesh that plays CA.
    workload = leaf(issuing, [uri])
    kinds["signed-by-a-leaf"] = (leaf(workload, [uri]), [workload[0], *ours])
    for kind, (made, chain) in kinds.items():
        write(options.out, kind, made, chain)
    print(json.dumps(list(kinds)))


if __name__ == "__main__":
    main()
