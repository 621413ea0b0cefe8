"""Checks an ASiC-E container with CAdES with the standard library and openssl alone: no code of ours.

Usage: check_container.py EXPECTED

EXPECTED is a JSON file: {"container": PATH, "ca": PATH, "objects": [{"name": TEXT, "mediaType": TEXT, "file": PATH}…]}

The container begins with a stored `mimetype` without extra field (EN 319 162-1 clause A.1), has just the objects that are expected, in their
order, and one manifest that names each of them with its SHA-256 (clause A.4), whose signature openssl takes. Exits with 1 and a reason otherwise.
"""

import base64
import hashlib
import json
import subprocess
import sys
import tempfile
import urllib.parse
import xml.etree.ElementTree as ElementTree
import zipfile
from pathlib import Path

MEDIA_TYPE = b"application/vnd.etsi.asic-e+zip"
MANIFEST, SIGNATURE = "META-INF/ASiCManifest001.xml", "META-INF/signature001.p7s"
ASIC, DS = "{http://uri.etsi.org/02918/v1.2.1#}", "{http://www.w3.org/2000/09/xmldsig#}"


def need(condition, what):
    if not condition:
        sys.exit(what)


def main(expected_path):
    expected = json.loads(Path(expected_path).read_text())
    objects = expected["objects"]
    raw = Path(expected["container"]).read_bytes()
    need(raw[:4] == b"PK\x03\x04" and raw[30:38] == b"mimetype" and raw[38 : 38 + len(MEDIA_TYPE)] == MEDIA_TYPE, "mimetype is not at its place")
    need(raw[28:30] == b"\0\0", "mimetype has an extra field")
    with zipfile.ZipFile(expected["container"]) as container:
        need(container.testzip() is None, "an entry has another checksum")
        need(container.getinfo("mimetype").compress_type == zipfile.ZIP_STORED, "mimetype is compressed")
        names = ["mimetype", *(one["name"] for one in objects), MANIFEST, SIGNATURE]
        need(container.namelist() == names, f"it has {container.namelist()}")
        manifest = container.read(MANIFEST)
        root = ElementTree.fromstring(manifest)
        need(root.tag == ASIC + "ASiCManifest", "the manifest is another element")
        signature = root.find(ASIC + "SigReference")
        need((signature.get("URI"), signature.get("MimeType")) == (SIGNATURE, "application/pkcs7-signature"), "the signature is not referred to")
        references = root.findall(ASIC + "DataObjectReference")
        need(len(references) == len(objects), "not just the objects are referred to")
        for one, reference in zip(objects, references):
            content = Path(one["file"]).read_bytes()
            need(urllib.parse.unquote(reference.get("URI")) == one["name"], f"{reference.get('URI')} is not {one['name']}")
            need(reference.get("MimeType") == one["mediaType"], f"{one['name']} has the media type {reference.get('MimeType')}")
            need(reference.find(DS + "DigestMethod").get("Algorithm") == "http://www.w3.org/2001/04/xmlenc#sha256", "another hash function")
            value = base64.b64decode(reference.find(DS + "DigestValue").text, validate=True)
            need(container.read(one["name"]) == content and value == hashlib.sha256(content).digest(), f"{one['name']} is other content")
        with tempfile.TemporaryDirectory() as folder:
            files = {"manifest": manifest, "signature": container.read(SIGNATURE)}
            paths = {name: str(Path(folder, name)) for name in files}
            for name, content in files.items():
                Path(paths[name]).write_bytes(content)
            command = ["openssl", "cms", "-verify", "-binary", "-cades", "-inform", "DER", "-in", paths["signature"]]
            command += ["-content", paths["manifest"], "-CAfile", expected["ca"], "-out", "/dev/null"]
            verified = subprocess.run(command, capture_output=True, text=True)
            need(verified.returncode == 0, verified.stderr)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
