"""Signs with pyHanko, in the forms that it has: plain CMS, CAdES, with time stamps, and with revocation lists in the signature.

Usage: sign_cms.py MANIFEST

MANIFEST is a JSON file with paths of PEM files ("key", "certificate", "ca", "tsa_key", "tsa_certificate") and of the "content", a list "crls" of paths of
DER files, and a folder "out". Writes NAME.p7s there for each form, with its name in the list that it prints.
"""

import asyncio
import json
import sys
from pathlib import Path

from asn1crypto import cms, crl
from pyhanko.keys import load_cert_from_pemder, load_private_key_from_pemder
from pyhanko.sign.ades.api import CAdESSignedAttrSpec
from pyhanko.sign.signers import SimpleSigner
from pyhanko.sign.signers.pdf_cms import PdfCMSSignedAttributes
from pyhanko.sign.timestamps import DummyTimeStamper
from pyhanko_certvalidator.registry import SimpleCertificateStore


def with_lists(signature, lists):
    """The signature with CRLs in SignedData, as DSS writes it for the level LT."""
    signature["content"]["crls"] = [cms.RevocationInfoChoice("crl", crl.CertificateList.load(der)) for der in lists]
    return signature


async def main(manifest):
    content = Path(manifest["content"]).read_bytes()
    authorities = [load_cert_from_pemder(manifest["ca"])]
    store = SimpleCertificateStore()
    store.register_multiple(authorities)
    stamper = DummyTimeStamper(
        load_cert_from_pemder(manifest["tsa_certificate"]), load_private_key_from_pemder(manifest["tsa_key"], None), store
    )
    plain = SimpleSigner.load(manifest["key"], manifest["certificate"], ca_chain_files=[manifest["ca"]])
    pss = SimpleSigner.load(manifest["key"], manifest["certificate"], ca_chain_files=[manifest["ca"]], prefer_pss=True)
    stamped_content = PdfCMSSignedAttributes(cades_signed_attrs=CAdESSignedAttrSpec(timestamp_content=True))
    lists = [Path(path).read_bytes() for path in manifest["crls"]]

    async def sign(signer, digest="sha256", **options):
        return await signer.async_sign_general_data(content, digest, **options)

    made = {
        "plain": await sign(plain),
        "plain-attached": await sign(plain, detached=False),
        "plain-sha512": await sign(plain, "sha512"),
        "bes": await sign(plain, use_cades=True),
        "t": await sign(plain, use_cades=True, timestamper=stamper),
        "t-attached": await sign(plain, use_cades=True, timestamper=stamper, detached=False),
        "content-stamp": await sign(plain, use_cades=True, timestamper=stamper, signed_attr_settings=stamped_content),
        "lt": with_lists(await sign(plain, use_cades=True, timestamper=stamper), lists),
    }
    if plain.signing_cert.public_key.algorithm == "rsa":
        made["bes-pss"] = await sign(pss, use_cades=True)
    for name, signature in made.items():
        (Path(manifest["out"]) / f"{name}.p7s").write_bytes(signature.dump())
    print(json.dumps(list(made)))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    asyncio.run(main(json.loads(Path(sys.argv[1]).read_text())))
