"""C2PA manifests of shards: written with a certificate of the test's own, read back by the library, broken by one changed byte."""

from __future__ import annotations

import datetime
import json
import shutil

import pytest
from facefoundry.core.errors import UserError
from facefoundry.identity.dataset import shards_of
from facefoundry.jobs.c2pa_sidecar import check_signatures, path_of, sign_dataset
from facefoundry.jobs.media_type import TRAINED
from facefoundry.jobs.run import run_job
from facefoundry.jobs.spec import load_job
from procedural import job_file

c2pa = pytest.importorskip("c2pa")
from cryptography import x509  # noqa: E402
from cryptography.hazmat.primitives import hashes, serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: E402
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID  # noqa: E402


def certificate(name, issuer=None):
    """A key and its certificate, for a day: of an authority, or of a signer it vouches for."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.timezone.utc)
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "test")])
    by, by_key = (issuer[1].subject, issuer[0]) if issuer else (who, key)
    usage = {part: part == ("digital_signature" if issuer else "key_cert_sign") for part in USAGES}
    made = x509.CertificateBuilder().subject_name(who).issuer_name(by).public_key(key.public_key()).serial_number(x509.random_serial_number())
    made = made.not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=1))
    made = made.add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), True).add_extension(x509.KeyUsage(**usage), True)
    made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
    made = made.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by_key.public_key()), False)
    if issuer:
        made = made.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
    return key, made.sign(by_key, hashes.SHA256())


USAGES = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")


@pytest.fixture(scope="module")
def pem(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pem")
    authority = certificate("authority")
    key, signer = certificate("signer", authority)
    (folder / "chain.pem").write_bytes(b"".join(part.public_bytes(serialization.Encoding.PEM) for part in (signer, authority[1])))
    for name, private in (("key.pem", key), ("other.pem", ec.generate_private_key(ec.SECP256R1()))):
        (folder / name).write_bytes(private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return folder


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("job")
    run_job(load_job(job_file(folder)), folder / "faces", workers=1)
    return folder / "faces"


def test_signed_shards_are_valid_until_a_byte_changes(dataset, pem, tmp_path):
    folder = shutil.copytree(dataset, tmp_path / "faces")
    assert set(check_signatures(folder).values()) == {"no manifest"}
    files = sign_dataset(folder, pem / "chain.pem", pem / "key.pem")
    shards = shards_of(folder, "data")
    assert files == [path_of(shard) for shard in shards] and set(check_signatures(folder).values()) == {"valid"}
    with open(shards[0], "rb") as source:
        told = json.loads(c2pa.Reader("application/vnd.apache.parquet", source, files[0].read_bytes()).json())
    manifest = told["manifests"][told["active_manifest"]]
    action = next(part["data"]["actions"][0] for part in manifest["assertions"] if part["label"].startswith("c2pa.actions"))
    assert manifest["title"] == shards[0].name and (action["action"], action["digitalSourceType"]) == ("c2pa.created", TRAINED)
    data = bytearray(shards[0].read_bytes())
    data[len(data) // 2] ^= 1
    shards[0].write_bytes(data)
    assert "dataHash.mismatch" in check_signatures(folder)[shards[0].name]
    path_of(shards[0]).write_bytes(b"nonsense")
    assert check_signatures(folder)[shards[0].name].startswith("invalid")


def test_a_foreign_key_is_refused(dataset, pem, tmp_path):
    folder = shutil.copytree(dataset, tmp_path / "faces")
    with pytest.raises(UserError, match="expected a chain"):
        sign_dataset(folder, pem / "chain.pem", pem / "other.pem")
    with pytest.raises(UserError, match="cannot read .*absent.pem"):
        sign_dataset(folder, pem / "absent.pem", pem / "key.pem")


def test_real_faces_are_refused(dataset, pem, tmp_path):
    folder = shutil.copytree(dataset, tmp_path / "faces")
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"origins": [', '"origins": ["real", '))
    with pytest.raises(UserError, match="real faces"):
        sign_dataset(folder, pem / "chain.pem", pem / "key.pem")


def test_no_dataset_is_not_all_well(pem, tmp_path):
    for act in (check_signatures, lambda folder: sign_dataset(folder, pem / "chain.pem", pem / "key.pem")):
        with pytest.raises(UserError, match="no finished dataset"):
            act(tmp_path / "nowhere")
