# English: ours; it says the same.

## Sessions
session-created = The session was created.
session-deleted = The session was deleted.
session-missing = There is no such session.
session-not-created = The session was not created.
session-not-deleted = The session was not deleted.
too-many-sessions = Too many sessions are open: at most { $limit } are allowed.
data-uploaded = The session's data was uploaded.
data-not-uploaded = The session's data was not uploaded.
metadata-uploaded = The session's metadata was uploaded.
metadata-before-data = The session's data must be uploaded before its metadata.
metadata-not-uploaded = The session's metadata was not uploaded.
options-set = The session's options were set.
options-not-set = The session's options were not set.
option-bad-value = The option "{ $option }" has a value that is not allowed. Allowed are: { $allowed }.
option-bad-text = The option "{ $option }" must be a string of at most { $max } characters.
option-unsupported = The option "{ $option }" with the value "{ $value }" is not available at this gateway: what it needs is not configured.
option-foreign-ca = The option "caId" names a CA that the key's certificate does not come from.
option-needs-certificate = The option "embedCertificateType" with the value "nothing" is not supported unless "cadesType" is "undefined". Allowed are: signerCert, signerAndCaCert, signerCertAndCaInfo.

## Permissions
permission-granted = The request to use the signature key was granted. Number of uses: { $uses }.
permission-refused = The request to use the signature key was refused by the user.
permission-bad-uses = The request to use the signature key has a wrong value of "accessTimesNumber".
idempotency-key-reused = This idempotency key was used for another request.
idempotency-key-bad = An idempotency key has 1 to { $max } printable ASCII characters.
permission-not-granted = The request to use the signature key was not carried out.
permission-found = The permission to use the signature key was found.
permission-revoked = The permission to use the signature key was revoked.
permission-not-found = The permission to use the signature key was not found.
permission-unknown = There is no such permission to use the signature key.
permission-used-up = The permission to use the signature key is used up.
permission-expired = The permission to use the signature key has expired.
permission-was-revoked = The permission to use the signature key has been revoked.
permission-other-key = The permission is for other keys.
permission-other-content = The permission is for other content.
permission-by-policy = This client may not have anything signed with this key.
permission-too-many-waiting = Too many requests to use the signature wait for a decision: at most { $limit } may.
permission-too-many = There are too many permissions that can still be used: at most { $limit } may be.

## Signatures
signature-started = The creation of the signature was started.
signature-not-started = The creation of the signature could not be started.
signature-created = The signature was created.
signature-pending = The operation "Creation of the signature" is in progress.
signature-not-created = The signature was not created.
signature-uploaded = The signature was uploaded.
signature-not-uploaded = The signature was not uploaded.
verification-started = The verification of the signature was started.
verification-not-started = The verification of the signature could not be started.
verification-pending = The verification of the signature is under way.
signature-valid = The signature is valid.
signature-not-valid = The signature is not valid.
signature-not-verified = The signature was not verified.
signed-data-found = The signed data was found.
signed-data-not-found = The signed data was not found.

## Time stamps
time-stamp-started = The creation of the time stamp was started.
time-stamp-not-started = The creation of the time stamp could not be started.
time-stamp-created = The time stamp was created.
time-stamp-pending = The operation "Creation of the time stamp" is in progress.
time-stamp-not-created = The time stamp was not created.
time-stamp-uploaded = The time stamp was uploaded.
time-stamp-not-uploaded = The time stamp was not uploaded.
time-stamp-check-started = The check of the time stamp was started.
time-stamp-valid = The time stamp is valid.
time-stamp-not-valid = The time stamp is not valid ({ $detail }).
time-stamp-not-checked = The time stamp was not checked.

## Keys and certificates
key-chosen = The session's key was chosen.
key-not-chosen = The session's key was not chosen.
key-checked = The session's key was checked.
key-not-checked = The session's key could not be checked.
key-usable = The key can be used.
key-without-certificate = The key cannot be used: it has no certificate.
key-agreement-none = Key agreement keys are not supported.
certificate-found = The certificate was read.
certificate-not-found = The certificate could not be read.
key-type-unknown = Unknown key type. Allowed are: signature, keyAgreement.

## The service
services-ready = The services are working.
crypto-unavailable = The cryptographic service is not running.
storage-unavailable = The storage service is not running.
queue-full = The queue is full. Try again in { $seconds } s.
language-changed = The language was changed.
language-unknown = Unknown language. Allowed are: uk, ru, en.
features-listed = The features of the service were listed.
authorities-listed = The certificate authorities were listed.
tokens-listed = The connected tokens were listed.
operation-failed = The operation was not carried out.

## Requests that are not answered
caller-unknown = Unknown caller: a valid API key is needed.
origin-foreign = Pages of this origin may not use the service.
host-foreign = The service does not answer under this host name.
scope-missing = You may not use this service: your access does not include it.
route-unknown = There is no such resource.
method-not-allowed = The method is not supported. Allowed are: { $allow }.
body-too-long = The request body is too long: at most { $limit } bytes are allowed.
too-many-requests = Too many requests: try again in { $seconds } s.
too-many-waiting = Too many of your requests are waiting for an answer: try again in { $seconds } s.
body-too-slow = The request body did not come in time.
body-broken = The request body could not be read.
body-not-json = The request body is not a JSON object.
body-missing-member = The request body has no string "{ $name }".

## Causes of failures
cause-frozen = A signature was asked for, so the session's data, options and key cannot be changed any more.
cause-no-content = The session's data was not uploaded.
cause-no-signature = No signature was uploaded.
cause-not-verified = The signature was not asked to be verified.
cause-detached = The signature does not hold the signed data.
cause-not-a-signature = What was uploaded is no signature: { $detail }.
cause-armor = The signature is neither DER nor whole PEM or Base64.
cause-not-requested = No signature was asked for.
cause-no-time-stamp = No time stamp was asked for or uploaded.
cause-time-stamp-not-had = No time stamp was had ({ $detail }).
cause-overtaken = Another request is changing the session at the same time.
cause-not-supported-yet = The operation is not supported yet.
cause-no-content-time-stamp = Nothing was signed: no time stamp over the data was had ({ $detail }).
cause-not-completed = The signature was made, and what its form wants beside it was not had ({ $detail }). Ask for the signature again: the same one is completed, and no permission is spent.
cause-internal = Internal error of the service.
cause-body-type = Content-Type must be application/octet-stream, application/json or multipart/form-data.
cause-not-json = The request body is not a JSON object.
cause-missing-member = The request body has no string "{ $name }".
cause-missing-element = The form has no element "{ $name }".
cause-bad-form = The multipart/form-data form could not be read.
cause-bad-base64 = "{ $name }" is not correct Base64.
cause-bad-permission = "accessTokenUuid" is not a string.
cause-pin-missing = PIN missing: "keyStorePassword" is empty.
cause-bad-pin = "keyStorePassword" is not a PIN: a string of at most { $max } bytes or an integer is needed.
cause-pin-and-permission = Only one of "accessTokenUuid" and "keyStorePassword" can be given.
cause-bad-uri = "keyStorePath" is not a usable pkcs11: URI: { $detail }.
cause-key-container = Key containers are not taken: keys live on tokens here. Give "keyStorePath" with a pkcs11: URI.
cause-no-key = No key was chosen and this caller has no default key.
cause-unknown-key = There is no such key that this caller may use.
cause-foreign-key = This caller may not use this key.
cause-unknown-token = No token that is plugged in matches this URI.
cause-token-ambiguous = { $count } tokens match this URI; add the serial number.
cause-key-not-found = There is no such key on the token.
cause-key-ambiguous = { $count } keys on the token match; name one by its id.
cause-not-supported = The key or the token does not support this: { $detail }.
cause-no-public-key = The key has neither a public key nor a certificate, so its signatures could not be verified.
cause-no-certificate = The key has no certificate.
cause-certificate-not-yet-valid = The certificate is not valid before { $time }.
cause-certificate-expired = The certificate expired at { $time }; it must be renewed.
cause-certificate-replaced = The certificate was replaced by a newer one; choose the key by its name.
cause-quarantined = The key is quarantined: it made a wrong signature.
cause-no-chain = The certificates of this key's authority are not known.
cause-bulk-count = 1 to { $max } hashes are needed.
cause-bulk-attached = Signatures of hashes can only be detached.
cause-bulk-hash = A hash of { $len } bytes does not suit this key.
cause-bulk-timeout = The signatures were not made in time.
cause-pin-refused = The PIN was not accepted: { $detail }.
cause-pin-forgotten = The service was restarted, and the request's PIN is gone.
cause-key-not-usable = The key on the token cannot be used.
cause-device = The token did not do as it was asked: { $detail }.
cause-wrong-signature = The token made a wrong signature; the key is quarantined.
cause-outcome-unknown = It is not known whether the token made the signature.
cause-deadline-passed = The token did not come to it in time.
cause-cancelled = The operation was cancelled.
cause-resolved-signed = The operator found that the token had signed, but the signature was lost.
cause-resolved-not-signed = The operator found that the token had not signed.

## Words of certificate information
certificate-owner = Owner of the certificate
certificate-issuer = Issuer of the certificate
certificate-public-key = Public key
certificate-serial = Serial number of the certificate
certificate-not-before = Valid from
certificate-not-after = Valid until
certificate-extensions = Extensions of the certificate
certificate-full-name = Full name
certificate-organization = Organisation
certificate-unit = Unit
certificate-title = Title
certificate-country = Country
certificate-region = Region
certificate-locality = Locality
certificate-id = Identifier
certificate-distinguished-name = Distinguished name
certificate-key-algorithm = Key algorithm
certificate-key-value = Public key value
certificate-key-usage = Key usage
