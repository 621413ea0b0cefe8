"""Recomputes every reference and value of the CAdES forms T, C and X Long with asn1crypto alone: no code of ours, no network, a clock of its own.

Usage: check_forms.py MANIFEST

MANIFEST is a JSON file:

    {"root": PATH, "years": NUMBER,
     "cases": [{"name": TEXT, "signature": PATH, "content": PATH, "form": "undefined"|"CAdESBES"|"CAdEST"|"CAdESC"|"CAdESXLong",
                "embedded": [PATH…], "path": [PATH…], "attached": BOOL, "signatureTs": BOOL, "contentTs": BOOL, "caInfo": BOOL,
                "signers": NUMBER}…]}

All files are DER. A case is about the signer whose certificate is the first of "path", of as many as "signers" says, or of one. "path" is the signer's certificate and the CAs above it, the root last; "embedded" are those in the signature. For X Long the signature must verify with what stands in it and the root alone, "years" after now: the path is built from the
certificate values, and every CA and the signer have evidence among the revocation values that covers the time of the time stamp.
Prints a line for each case that is wrong, and how many were right; the exit code is 0 only if all were, and there was at least one.
"""

import datetime
import hashlib
import json
import sys
from pathlib import Path

from asn1crypto import algos, cms, core, crl, ocsp, parser, tsp, x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

PREFIX = "1.2.840.113549.1.9.16.2."
SIGNING_CERTIFICATE_V2, SIGNATURE_TS, CONTENT_TS = PREFIX + "47", PREFIX + "14", PREFIX + "20"
CERT_REFS, REVOCATION_REFS, CERT_VALUES, REVOCATION_VALUES = (PREFIX + n for n in ("21", "22", "23", "24"))


class OtherHash(core.Choice):
    _alternatives = [("sha1", core.OctetString), ("other", algos.DigestInfo)]


class OtherCertId(core.Sequence):
    _fields = [("hash", OtherHash), ("issuer_serial", tsp.IssuerSerial, {"optional": True})]


class OtherCertIds(core.SequenceOf):
    _child_spec = OtherCertId


class CrlIdentifier(core.Sequence):
    _fields = [("issuer", x509.Name), ("time", core.UTCTime), ("number", core.Integer, {"optional": True})]


class CrlValidatedId(core.Sequence):
    _fields = [("hash", OtherHash), ("identifier", CrlIdentifier, {"optional": True})]


class CrlValidatedIds(core.SequenceOf):
    _child_spec = CrlValidatedId


class CrlListId(core.Sequence):
    _fields = [("crls", CrlValidatedIds)]


class OcspIdentifier(core.Sequence):
    _fields = [("responder", ocsp.ResponderId), ("produced_at", core.GeneralizedTime)]


class OcspResponsesId(core.Sequence):
    _fields = [("identifier", OcspIdentifier), ("hash", OtherHash, {"optional": True})]


class OcspResponsesIds(core.SequenceOf):
    _child_spec = OcspResponsesId


class OcspListId(core.Sequence):
    _fields = [("responses", OcspResponsesIds)]


class CrlOcspRef(core.Sequence):
    _fields = [("crls", CrlListId, {"explicit": 0, "optional": True}), ("ocsps", OcspListId, {"explicit": 1, "optional": True})]


class CrlOcspRefs(core.SequenceOf):
    _child_spec = CrlOcspRef


class Certificates(core.SequenceOf):
    _child_spec = x509.Certificate


class Crls(core.SequenceOf):
    _child_spec = crl.CertificateList


class BasicResponses(core.SequenceOf):
    _child_spec = ocsp.BasicOCSPResponse


class RevocationValues(core.Sequence):
    _fields = [("crls", Crls, {"explicit": 0, "optional": True}), ("ocsps", BasicResponses, {"explicit": 1, "optional": True})]


def need(condition, what):
    if not condition:
        raise ValueError(what)


def elements(body):
    """The values that stand one behind the other, each whole."""
    found = []
    while body:
        length = parser.peek(body)
        found.append(body[:length])
        body = body[length:]
    return found


def check_lengths(encoded):
    """Every length in the value, however deep, is definite and of the shortest form."""
    _, constructed, _, header, body, _ = parser.parse(encoded, strict=True)
    octets = header[2:]
    need(header[1] == len(body) if not octets else len(body) >= 0x80 and octets[0] != 0 and int.from_bytes(octets, "big") == len(body), "a length is not DER")
    if constructed:
        for element in elements(body):
            check_lengths(element)


def check_der(attributes, tag):
    """The set is DER: its elements are in ascending order of their encodings, each once, and their lengths are the shortest."""
    encoded = attributes.dump()
    need(encoded[0] == tag, "attributes have another tag")
    check_lengths(encoded)
    found = elements(parser.parse(encoded, strict=True)[4])
    need(found == sorted(set(found)), "attributes are not sorted, or one stands twice")
    for attribute in found:
        values = elements(elements(parser.parse(attribute)[4])[1])
        need(values == sorted(set(values)), "values are not sorted, or one stands twice")


def value(attributes, oid):
    found = [attribute for attribute in attributes if attribute["type"].dotted == oid]
    need(len(found) <= 1, f"{oid} stands twice")
    if not found:
        return None
    need(len(found[0]["values"]) == 1, f"{oid} does not have one value")
    return found[0]["values"][0].dump()


def digest(name, data):
    return hashlib.new(name, data).digest()


def check_hash(reference, data):
    need(reference.name == "other", "a reference is SHA-1")
    info = reference.chosen
    name = info["digest_algorithm"]["algorithm"].native
    need(info["digest"].native == digest(name, data), "a reference has another hash")


def hash_of(name):
    return {"sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}[name]


def verify(certificate, algorithm, digest_name, signature, data):
    key = serialization.load_der_public_key(certificate.public_key.dump())
    if isinstance(key, rsa.RSAPublicKey):
        if algorithm.signature_algo == "rsassa_pss":
            parameters = algorithm["parameters"]
            name = parameters["hash_algorithm"]["algorithm"].native
            need(parameters["mask_gen_algorithm"]["parameters"]["algorithm"].native == name, "the mask has another hash")
            need(parameters["salt_length"].native == hash_of(name).digest_size, "the salt has another length")
            scheme = padding.PSS(padding.MGF1(hash_of(name)), hash_of(name).digest_size)
            key.verify(signature, data, scheme, hash_of(name))
        else:
            key.verify(signature, data, padding.PKCS1v15(), hash_of(digest_name))
    elif isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(signature, data, ec.ECDSA(hash_of(algorithm.hash_algo)))
    elif isinstance(key, ed25519.Ed25519PublicKey):
        key.verify(signature, data)
    else:
        raise ValueError("no such key")


def verify_signed(issuer, signed, tbs):
    name = signed["signature_algorithm"].hash_algo
    value_field = "signature_value" if isinstance(signed, x509.Certificate) else "signature"
    verify(issuer, signed["signature_algorithm"], name, signed[value_field].native, signed[tbs].dump())


def signer_of(data, certificates):
    """The certificate of the only signer among those that are embedded, named by issuer and serial number."""
    return next((c for c in certificates if signer_info(data, c, 1)), None)


def signer_info(data, certificate, signers):
    """The `SignerInfo` that names this certificate, of so many."""
    infos = data["signer_infos"]
    need(len(infos) == signers, f"there are {len(infos)} signers")
    need([i.dump() for i in infos] == sorted(i.dump() for i in infos), "the signers are not sorted")
    named = (certificate.issuer.dump(), certificate.serial_number)
    return next((i for i in infos if (i["sid"].chosen["issuer"].dump(), i["sid"].chosen["serial_number"].native) == named), None)


def check_time_stamp(token_der, stamped, root, at):
    """A token over `stamped`: structure, imprint, signature, purpose, path to the root. Gives back its time."""
    info = cms.ContentInfo.load(token_der, strict=True)
    data = info["content"]
    need(data["encap_content_info"]["content_type"].native == "tst_info", "the token is none")
    tst = data["encap_content_info"]["content"].parsed
    imprint = tst["message_imprint"]
    need(imprint["hashed_message"].native == digest(imprint["hash_algorithm"]["algorithm"].native, stamped), "the imprint is of other data")
    certificates = [choice.chosen for choice in data["certificates"]]
    authority = signer_of(data, certificates)
    check_signer(data["signer_infos"][0], authority, tst.dump())
    need(authority.extended_key_usage_value.native == ["time_stamping"], "the authority has another purpose")
    check_path([authority, root], at)
    return tst["gen_time"].native


def check_signer(signer, certificate, content):
    attributes = signer["signed_attrs"]
    signed = attributes.untag().dump()
    name = signer["digest_algorithm"]["algorithm"].native
    need(core.OctetString.load(value(attributes, "1.2.840.113549.1.9.4")).native == digest(name, content), "the content has another digest")
    verify(certificate, signer["signature_algorithm"], name, signer["signature"].native, signed)
    named = value(attributes, SIGNING_CERTIFICATE_V2)
    if named:
        first = tsp.SigningCertificateV2.load(named)["certs"][0]
        need(first["hash_algorithm"]["algorithm"].native == "sha256", "ESSCertIDv2 has another hash")
        need(first["cert_hash"].native == digest("sha256", certificate.dump()), "ESSCertIDv2 names another certificate")
    return attributes


def check_path(path, at):
    for certificate, issuer in zip(path, path[1:] + path[-1:]):
        need(certificate.issuer == issuer.subject, "the path does not fit by name")
        verify_signed(issuer, certificate, "tbs_certificate")
        validity = certificate["tbs_certificate"]["validity"]
        need(validity["not_before"].native <= at <= validity["not_after"].native, "a certificate was not valid")
    for issuer in path[1:]:
        need(issuer.ca and "key_cert_sign" in issuer.key_usage_value.native, "a CA is none")


def check_crl(reference, crls, issuer, certificate, at):
    (one,) = reference["crls"]["crls"]
    found = [c for c in crls if c.dump() == next((d.dump() for d in crls if digest("sha256", d.dump()) == one["hash"].chosen["digest"].native), None)]
    need(len(found) == 1, "the CRL that is referred to is not there, or twice")
    check_hash(one["hash"], found[0].dump())
    tbs = found[0]["tbs_cert_list"]
    identifier = one["identifier"]
    need(identifier["issuer"].dump() == tbs["issuer"].dump() == issuer.subject.dump(), "the CRL is of another issuer")
    need(identifier["time"].native == tbs["this_update"].native, "the CRL is of another time")
    need(identifier["number"].native == found[0].crl_number_value.native, "the CRL has another number")
    verify_signed(issuer, found[0], "tbs_cert_list")
    need(tbs["this_update"].native <= at + datetime.timedelta(minutes=5) and at <= tbs["next_update"].native, "the CRL was not valid then")
    revoked = [entry["user_certificate"].native for entry in tbs["revoked_certificates"] or []]
    need(certificate.serial_number not in revoked, "the certificate was revoked")


def check_ocsp(reference, responses, issuer, certificate, at):
    (one,) = reference["ocsps"]["responses"]
    found = [r for r in responses if digest("sha256", r.dump()) == one["hash"].chosen["digest"].native]
    need(len(found) == 1, "the OCSP answer that is referred to is not there, or twice")
    check_hash(one["hash"], found[0].dump())
    tbs = found[0]["tbs_response_data"]
    need(one["identifier"]["responder"].dump() == tbs["responder_id"].dump(), "the OCSP answer is of another responder")
    need(one["identifier"]["produced_at"].native == tbs["produced_at"].native, "the OCSP answer is of another time")
    responder = issuer
    if len(found[0]["certs"] or []):
        responder = found[0]["certs"][0]
        if responder.dump() != issuer.dump():
            verify_signed(issuer, responder, "tbs_certificate")
            need("ocsp_signing" in responder.extended_key_usage_value.native, "the responder has another purpose")
    verify_signed(responder, found[0], "tbs_response_data")
    single = next((s for s in tbs["responses"] if s["cert_id"]["serial_number"].native == certificate.serial_number), None)
    need(single is not None and single["cert_status"].name == "good", "the OCSP answer does not say that the certificate is good")
    need(single["this_update"].native <= at + datetime.timedelta(minutes=5), "the OCSP answer was not valid then")


def check_references(attributes, form, path, at):
    """`path` is the signer's certificate and the CAs above it, the root last."""
    references = OtherCertIds.load(value(attributes, CERT_REFS), strict=True)
    need(len(references) == len(path) - 1, "not every CA is referred to")
    for reference, certificate in zip(references, path[1:]):
        check_hash(reference["hash"], certificate.dump())
        serial = reference["issuer_serial"]
        need(serial["serial_number"].native == certificate.serial_number, "a CA is referred to by another number")
        need(serial["issuer"][0].chosen.untag().dump() == certificate.issuer.dump(), "a CA is referred to by another issuer")
    evidence = CrlOcspRefs.load(value(attributes, REVOCATION_REFS), strict=True)
    need(len(evidence) == len(path), "not every certificate has a reference to evidence")
    need(len(evidence[-1].contents) == 0, "the root has evidence")
    if form != "CAdESXLong":
        need(value(attributes, CERT_VALUES) is None and value(attributes, REVOCATION_VALUES) is None, "values stand in the form C")
        return
    values = Certificates.load(value(attributes, CERT_VALUES), strict=True)
    need([c.dump() for c in values] == [c.dump() for c in path], "the certificate values are not those of the path")
    revocation = RevocationValues.load(value(attributes, REVOCATION_VALUES), strict=True)
    crls, responses = list(revocation["crls"] or []), list(revocation["ocsps"] or [])
    used = 0
    for reference, certificate, issuer in zip(evidence, path, path[1:]):
        if reference["crls"]:
            check_crl(reference, crls, issuer, certificate, at)
        else:
            check_ocsp(reference, responses, issuer, certificate, at)
        used += 1
    need(0 < len(crls) + len(responses) <= used, "there are values that nothing refers to")


def check(case, roots, now):
    info = cms.ContentInfo.load(Path(case["signature"]).read_bytes(), strict=True)
    data = info["content"]
    need(data["version"].native == "v1", "the version is another one")
    content = Path(case["content"]).read_bytes()
    inside = data["encap_content_info"]["content"]
    need(inside.native == (content if case["attached"] else None), "the content is not where it belongs")
    embedded = [choice.chosen for choice in data["certificates"] or []]
    expected = [Path(path).read_bytes() for path in case["embedded"]]
    need(sorted(c.dump() for c in embedded) == sorted(expected), "other certificates are embedded")
    need([a.dump() for a in data["digest_algorithms"]] == sorted({a.dump() for a in data["digest_algorithms"]}), "digest algorithms are not sorted")
    need([c.dump() for c in embedded] == sorted(c.dump() for c in embedded), "certificates are not sorted")
    path = [x509.Certificate.load(Path(name).read_bytes(), strict=True) for name in case["path"]]
    signer = signer_info(data, path[0], case.get("signers", 1))
    need(signer["digest_algorithm"]["algorithm"].native in [a["algorithm"].native for a in data["digest_algorithms"]], "the signer's digest algorithm is not listed")
    attributes = check_signer(signer, path[0], content)
    check_der(attributes, 0xA0)
    root = roots[-1]
    unsigned = signer["unsigned_attrs"]
    wanted = case["form"] in ("CAdEST", "CAdESC", "CAdESXLong")
    need((value(attributes, SIGNING_CERTIFICATE_V2) is not None) == (case["form"] != "undefined" or case["caInfo"]), "signing-certificate-v2")
    if case["caInfo"]:
        named = tsp.SigningCertificateV2.load(value(attributes, SIGNING_CERTIFICATE_V2))["certs"]
        need([c["cert_hash"].native for c in named] == [digest("sha256", c.dump()) for c in path], "the CAs are not named")
    if case["contentTs"]:
        check_time_stamp(value(attributes, CONTENT_TS), content, root, now)
    else:
        need(value(attributes, CONTENT_TS) is None, "there is a content time stamp")
    if not (wanted or case["signatureTs"]):
        need(len(unsigned) == 0, "there are unsigned attributes")
        return
    check_der(unsigned, 0xA1)
    at = check_time_stamp(value(unsigned, SIGNATURE_TS), signer["signature"].native, root, now)
    check_path(path, at)
    if case["form"] in ("CAdESC", "CAdESXLong"):
        check_references(unsigned, case["form"], path, at)
    else:
        need(len(unsigned) == 1, "there are other unsigned attributes")


def main(manifest_path):
    manifest = json.loads(Path(manifest_path).read_text())
    roots = [x509.Certificate.load(Path(manifest["root"]).read_bytes(), strict=True)]
    now = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=365 * manifest["years"])
    wrong = []
    for case in manifest["cases"]:
        try:
            check(case, roots, now)
        except Exception as error:  # whatever it is, the case is not as it should be
            wrong.append(f"{case['name']}: {type(error).__name__}: {error}")
    print(*wrong, f"{len(manifest['cases']) - len(wrong)} of {len(manifest['cases'])} as expected", sep="\n")
    return 0 if manifest["cases"] and not wrong else 1


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
