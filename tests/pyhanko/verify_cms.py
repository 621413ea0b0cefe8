"""Verifies CMS signatures with pyHanko: an implementation that shares no code with ours, nor with OpenSSL's CMS.

Usage: verify_cms.py MANIFEST

MANIFEST is a JSON file:

    {"roots": [PATH…],
     "cases": [{"name": TEXT, "signature": PATH, "content": PATH or null, "certificates": [PATH…], "accept": BOOL,
                "signers": NUMBER}…]}

All files are DER. "content" is given for detached signatures. "certificates" are those that the relying party has from elsewhere: they
are put into the signature, which they are no signed part of. Of several "signers" (one, where nothing is said) each is judged by itself, for
pyHanko takes one at a time. Prints a line for each case that did not end as it should, and how many
did; the exit code is 0 only if all did, and there was at least one.
"""

import asyncio
import json
import sys
from pathlib import Path

from asn1crypto import cms, x509
from pyhanko.sign.validation import async_validate_cms_signature, async_validate_detached_cms
from pyhanko_certvalidator import ValidationContext


def load_certificate(path):
    return x509.Certificate.load(Path(path).read_bytes(), strict=True)


def load_signed_data(case, number):
    info = cms.ContentInfo.load(Path(case["signature"]).read_bytes(), strict=True)
    if info["content_type"].native != "signed_data":
        raise ValueError("not SignedData")
    signed_data = info["content"]
    elsewhere = [cms.CertificateChoices("certificate", load_certificate(path)) for path in case["certificates"]]
    if elsewhere:
        embedded = list(signed_data["certificates"] or [])
        signed_data["certificates"] = embedded + elsewhere
    signers = list(signed_data["signer_infos"])
    if len(signers) != case.get("signers", 1):
        raise ValueError(f"{len(signers)} signers")
    if len(signers) > 1:
        signed_data["signer_infos"] = [signers[number]]
    return signed_data


async def why_not_valid(case, roots):
    """Says why the signature is not valid; nothing if it is."""
    reasons = [await why_signer_not_valid(case, number, roots) for number in range(case.get("signers", 1))]
    return ", ".join(reason for reason in reasons if reason)


async def why_signer_not_valid(case, number, roots):
    signed_data = load_signed_data(case, number)
    context = ValidationContext(trust_roots=roots, allow_fetching=False)
    if case["content"] is None:
        status = await async_validate_cms_signature(signed_data, validation_context=context)
    else:
        content = Path(case["content"]).read_bytes()
        status = await async_validate_detached_cms(content, signed_data, signer_validation_context=context)
    flags = {"intact": status.intact, "valid": status.valid, "trusted": status.trusted}
    return ", ".join(f"not {name}" for name, holds in flags.items() if not holds)


async def verify(case, roots):
    """Says how the case ended if it did not end as it should."""
    try:
        reason = await why_not_valid(case, roots)
    except Exception as error:  # pyHanko has many; to the caller a signature that cannot be read is refused
        reason = f"{type(error).__name__}: {error}"
    if case["accept"] and reason:
        return f"{case['name']}: refused: {reason}"
    if not case["accept"] and not reason:
        return f"{case['name']}: accepted"
    return None


async def main(manifest_path):
    manifest = json.loads(Path(manifest_path).read_text())
    roots = [load_certificate(path) for path in manifest["roots"]]
    ended = [await verify(case, roots) for case in manifest["cases"]]
    wrong = [line for line in ended if line]
    print(*wrong, f"{len(ended) - len(wrong)} of {len(ended)} as expected", sep="\n")
    return 0 if ended and not wrong else 1


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(asyncio.run(main(sys.argv[1])))
