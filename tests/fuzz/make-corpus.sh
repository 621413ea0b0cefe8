#!/bin/sh
# Makes the certificates that the fuzz targets trust, and the openssl part of their corpora. The result is committed; run it again only to
# replace all of it: signatures of the gateway itself, which lie beside it as sealgate-*, have other signers and stay.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
material=$PWD/material
corpus=$PWD/corpus
sources=$(cd ../../src && pwd)
for target in armor signature time_stamp_token time_stamp_response time_stamp_request ocsp_response crl certificate path \
    certificate_request csr_attributes cms_content key_uri configuration audit_export; do
    mkdir -p "$corpus/$target"
done
find "$corpus" -type f ! -name 'sealgate-*' -delete
cd "$work"

printf 'what the fuzz targets know as signed content\n' > content
cp content "$material/content"

cat > ca.cnf <<'CNF'
[ca]
default_ca = ours
[ours]
database = index
serial = serial
crlnumber = crlnumber
new_certs_dir = .
default_md = sha256
policy = any
copy_extensions = none
[any]
commonName = supplied
[root]
basicConstraints = critical,CA:true
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[middle]
basicConstraints = critical,CA:true,pathlen:0
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[signer]
keyUsage = critical,digitalSignature,nonRepudiation
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
crlDistributionPoints = URI:http://crl.invalid/ca.crl
authorityInfoAccess = OCSP;URI:http://ocsp.invalid/
certificatePolicies = 1.2.3.4
[tsa]
keyUsage = critical,digitalSignature
extendedKeyUsage = critical,timeStamping
authorityKeyIdentifier = keyid
[responder]
keyUsage = critical,digitalSignature
extendedKeyUsage = OCSPSigning
authorityKeyIdentifier = keyid
noCheck = ignored
[tsa_config]
default_policy = 1.2.3.4.1
digests = sha256, sha384, sha512
serial = tsaserial
ess_cert_id_chain = no
ess_cert_id_alg = sha256
accuracy = secs:1
ordering = no
tsa_name = no
CNF
touch index
echo 1000 > serial
echo 01 > crlnumber
echo 01 > tsaserial

key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:"${2:-P-256}" -out "$1.key"; }
issue() { # name, issuer, extensions
    openssl req -new -key "$1.key" -subj "/CN=Fuzz $1" -out "$1.csr" -batch
    openssl ca -batch -notext -config ca.cnf -cert "$2.pem" -keyfile "$2.key" -extensions "$3" -days 7300 -in "$1.csr" -out "$1.pem" 2> /dev/null
}
key root P-384
openssl req -x509 -new -key root.key -subj '/CN=Fuzz root' -days 7300 -addext 'basicConstraints=critical,CA:true' \
    -addext 'keyUsage=critical,keyCertSign,cRLSign' -out root.pem
key middle
issue middle root middle
for name in signer tsa responder revoked; do key $name; done
openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out rsa.key
openssl genpkey -algorithm ED25519 -out edwards.key
for name in signer rsa edwards revoked; do issue $name middle signer; done
issue tsa middle tsa
issue responder middle responder
cat middle.pem root.pem > chain.pem
for name in root middle signer tsa; do openssl x509 -in $name.pem -outform DER -out "$material/$name.der"; done

# Certificates and paths
for name in root middle signer rsa edwards tsa responder; do
    openssl x509 -in $name.pem -outform DER -out "$corpus/certificate/$name.der"
done
cp chain.pem "$corpus/certificate/chain.pem"
cat signer.pem middle.pem > "$corpus/path/signer.pem"
cp signer.pem "$corpus/path/alone.pem"
cat rsa.pem middle.pem root.pem > "$corpus/path/rsa.pem"
cat signer.pem root.pem tsa.pem rsa.pem middle.pem > "$corpus/path/muddle.pem"

# Signatures of every kind that openssl makes
sign() { # file, signer, options
    file=$1; name=$2; shift 2
    openssl cms -sign -binary -in content -signer $name.pem -inkey $name.key -outform DER -out "$corpus/signature/$file" "$@"
}
sign ec-attached.der signer -nodetach
sign ec-detached.der signer
sign ec-cades.der signer -cades
sign ec-chain.der signer -certfile chain.pem
sign rsa-v15.der rsa
sign rsa-pss.der rsa -keyopt rsa_padding_mode:pss -keyopt rsa_pss_saltlen:digest
sign sha512-keyid.der signer -md sha512 -keyid
sign no-attributes.der rsa -noattr
sign two-signers.der signer -signer rsa.pem -inkey rsa.key -nodetach
openssl cms -sign -binary -in content -signer signer.pem -inkey signer.key -stream -nodetach -outform DER -indef -out "$corpus/signature/indefinite.der"
openssl cms -sign -binary -in content -signer signer.pem -inkey signer.key -outform PEM -out pem
cp pem "$corpus/armor/signature.pem"
openssl base64 -in "$corpus/signature/ec-detached.der" -out "$corpus/armor/signature.b64"
cp "$corpus/signature/ec-detached.der" "$corpus/armor/"

# Time stamps
openssl ts -query -data content -sha256 -cert -out query
cp query "$corpus/time_stamp_request/with-nonce.tsq"
openssl ts -query -data content -sha512 -no_nonce -tspolicy 1.2.3.4.1 -out "$corpus/time_stamp_request/policy.tsq"
openssl ts -query -data content -sha1 -out "$corpus/time_stamp_request/sha1.tsq"
openssl ts -reply -config ca.cnf -section tsa_config -queryfile query -signer tsa.pem -inkey tsa.key -chain middle.pem -sha256 \
    -out "$corpus/time_stamp_response/granted.tsr" 2> /dev/null
openssl ts -reply -config ca.cnf -section tsa_config -queryfile query -signer tsa.pem -inkey tsa.key -chain middle.pem -sha256 -token_out \
    -out "$corpus/time_stamp_token/token.der" 2> /dev/null
openssl ts -reply -config ca.cnf -section tsa_config -queryfile "$corpus/time_stamp_request/sha1.tsq" -signer tsa.pem -inkey tsa.key \
    -out "$corpus/time_stamp_response/rejected.tsr" 2> /dev/null || true

# Revocation
openssl ca -config ca.cnf -cert middle.pem -keyfile middle.key -revoke revoked.pem -crl_reason keyCompromise 2> /dev/null
openssl ca -config ca.cnf -cert middle.pem -keyfile middle.key -gencrl -crldays 7300 -out crl.pem 2> /dev/null
openssl crl -in crl.pem -outform DER -out "$corpus/crl/middle.crl"
answer() { # certificate, file, signer
    openssl ocsp -issuer middle.pem -cert "$1.pem" -reqout request -no_nonce > /dev/null 2>&1
    openssl ocsp -index index -CA middle.pem -rsigner "$3.pem" -rkey "$3.key" -reqin request -respout "$corpus/ocsp_response/$2" -ndays 7300 > /dev/null 2>&1
}
answer signer good-delegated.der responder
answer signer good-direct.der middle
answer revoked revoked.der responder

# Certificate requests
openssl req -in signer.csr -out "$corpus/certificate_request/plain.pem"
openssl req -in rsa.csr -out "$corpus/certificate_request/rsa.pem"
openssl req -new -key signer.key -subj '/C=UA/O=Fuzz/CN=Підпис' -utf8 -addext 'keyUsage=critical,nonRepudiation' \
    -addext 'subjectAltName=email:a@example.org' -out "$corpus/certificate_request/extensions.pem"
openssl req -in signer.csr -outform DER -out csr.der
openssl cms -sign -binary -nodetach -in csr.der -signer signer.pem -inkey signer.key -outform PEM -out "$corpus/certificate_request/in-cms.pem"
openssl cms -sign -binary -nodetach -in csr.der -signer signer.pem -inkey signer.key -outform DER -out "$corpus/cms_content/request.der"
openssl crl2pkcs7 -nocrl -certfile chain.pem -outform DER -out "$corpus/cms_content/certificates.der"
printf 'asn1=SEQUENCE:a\n[a]\none=OID:challengePassword\ntwo=SEQUENCE:b\n[b]\nkind=OID:id-ecPublicKey\nvalues=SET:c\n[c]\ncurve=OID:prime256v1\n' > attributes
openssl asn1parse -genconf attributes -noout -out "$corpus/csr_attributes/two.der"

# Text
printf 'pkcs11:token=My%%20token;serial=0123456789;manufacturer=SoftHSM%%20project;object=key%%2f1;id=%%01%%ab;type=private' > "$corpus/key_uri/whole"
printf 'pkcs11:' > "$corpus/key_uri/empty"
printf 'pkcs11:token=a?pin-source=file:/etc/pin' > "$corpus/key_uri/query"
cat > "$corpus/configuration/smallest.toml" <<'TOML'
data_dir = "data"
[[module]]
name = "soft"
path = "/bin/sh"
[[caller]]
name = "erp"
api_key_sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
TOML
cat "$corpus/configuration/smallest.toml" "$sources/config/tests_full.toml" > "$corpus/configuration/full.toml"
