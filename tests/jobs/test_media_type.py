"""The mark of machine-made media: in the file, beside the pixels, read by other programs, once."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from xml.etree import ElementTree

import numpy as np
import pytest
from facefoundry.core.errors import UserError
from facefoundry.core.images import decode, encode_jpeg, encode_png
from facefoundry.identity.dataset import FaceDataset
from facefoundry.jobs import spec
from facefoundry.jobs.export import export
from facefoundry.jobs.media_type import TRAINED, like, mark, source_type
from facefoundry.jobs.run import run_job
from facefoundry.jobs.spec import load_job
from PIL import Image, PngImagePlugin
from procedural import job_file

FACE = np.random.default_rng(0).integers(0, 256, (112, 112, 3), np.uint8)
FILES = {"png": encode_png(FACE), "jpeg": encode_jpeg(FACE, 95)}


@pytest.mark.parametrize("kind", FILES)
def test_marked_once_and_no_pixel_changes(kind):
    plain = FILES[kind]
    marked = mark(plain)
    assert source_type(plain) is None and source_type(marked) == TRAINED and mark(marked) == marked
    assert np.array_equal(decode(marked), decode(plain)) and 400 < len(marked) - len(plain) < 700


@pytest.mark.parametrize("kind", FILES)
def test_another_program_reads_it(kind):
    """Pillow finds the packet and an XML parser the property in the IPTC name space."""
    with Image.open(io.BytesIO(mark(FILES[kind]))) as picture:
        packet = picture.info["xmp"]
    found = [node.get("{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType") for node in ElementTree.fromstring(packet).iter()]
    assert [value for value in found if value] == [TRAINED]


def test_the_png_is_well_formed():
    """Every chunk's CRC is right, IHDR is first and the text stands before the pixels (PNG specification, 5.3 and 5.6)."""
    data, place, kinds = mark(FILES["png"]), 8, []
    while place < len(data):
        size, kind = struct.unpack(">I4s", data[place : place + 8])
        assert struct.unpack(">I", data[place + 8 + size : place + 12 + size])[0] == zlib.crc32(data[place + 4 : place + 8 + size])
        kinds.append(kind)
        place += 12 + size
    assert kinds[:2] == [b"IHDR", b"iTXt"] and kinds[-1] == b"IEND"


def test_the_jpeg_keeps_its_jfif_segment_first():
    data = mark(FILES["jpeg"])
    assert data[2:4] == b"\xff\xe0" and data[6:10] == b"JFIF" and data[20:22] == b"\xff\xe1"


def test_what_another_program_said_is_kept():
    taken = io.BytesIO()
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", '<x:xmpmeta xmlns:x="adobe:ns:meta/"><Iptc4xmpExt:DigitalSourceType>http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture</Iptc4xmpExt:DigitalSourceType></x:xmpmeta>')
    Image.fromarray(FACE).save(taken, "PNG", pnginfo=info)
    assert source_type(taken.getvalue()).endswith("digitalCapture") and mark(taken.getvalue()) == taken.getvalue()
    other = io.BytesIO()
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", "<x:xmpmeta xmlns:x='adobe:ns:meta/'/>")
    Image.fromarray(FACE).save(other, "PNG", pnginfo=info)
    with pytest.raises(UserError, match="without a digital source type"):
        mark(other.getvalue())


@pytest.mark.parametrize("data", [b"", b"GIF89a", FILES["png"][:20], FILES["jpeg"][:15], b"BM" + bytes(60)])
def test_other_files_are_refused(data):
    with pytest.raises(UserError, match="PNG and JPEG|truncated"):
        mark(data)


def test_the_switch_of_a_job(tmp_path):
    path = job_file(tmp_path, per_identity="2", filters="[]", writer="{mark: true}")
    run_job(load_job(path), tmp_path / "out", workers=1)
    assert {source_type(record.image) for record in FaceDataset.open(tmp_path / "out").records()} == {TRAINED}
    assert not load_job(job_file(tmp_path)).writer.mark
    for name, quality in (("copied", None), ("encoded_anew", 90)):
        export(tmp_path / "out", tmp_path / name, "imagefolder", quality=quality)
        files = [path.read_bytes() for path in (tmp_path / name).rglob("*") if path.suffix in (".png", ".jpg")]
        assert len(files) == 12 and {source_type(data) for data in files} == {TRAINED}
    assert like(FILES["jpeg"], FILES["png"]) == FILES["jpeg"]


def test_a_job_without_the_switch_has_the_fingerprint_it_had(tmp_path, monkeypatch):
    """What is hashed for a job that does not mark holds no word of it: folders begun before the switch was there go on."""
    hashed: list[bytes] = []
    monkeypatch.setattr(spec.hashlib, "sha256", lambda data: hashed.append(data) or hashlib.blake2b(data))
    path = job_file(tmp_path)
    for settings in ([], ["writer.mark=false"], ["writer.mark=true"]):
        load_job(path, settings).fingerprint()
    assert hashed[0] == hashed[1] != hashed[2] and b'"mark"' not in hashed[0] and b'"mark":true' in hashed[2]
