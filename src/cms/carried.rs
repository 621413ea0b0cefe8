//! What a CMS carries, without a word on who signed it: content that stands in it, and certificates.

use cms::{cert::CertificateChoices, content_info::ContentInfo, signed_data::SignedData};
use const_oid::db::rfc5911;
use der::{Decode, Encode, asn1::OctetStringRef};

use super::error::CmsError;

/// The longest CMS that is looked at, in bytes.
const CARRIER_MAX: usize = 512 * 1024;
/// The most certificates that are taken out of one.
const CARRIED_MAX: usize = 32;

/// The content that stands in a `SignedData`, whatever its type.
///
/// # Errors
/// [`CmsError::Carrier`].
pub fn attached_content(der: &[u8]) -> Result<Vec<u8>, CmsError> {
    let content = read(der)?.encap_content_info.econtent.ok_or(CmsError::Carrier("it has no content"))?;
    let octets = content.decode_as::<&OctetStringRef>().map_err(|_| CmsError::Carrier("its content is no octet string"))?;
    Ok(octets.as_bytes().to_vec())
}

/// The X.509 certificates in a `SignedData`, in DER, as a certs-only CMS brings them.
///
/// # Errors
/// [`CmsError::Carrier`].
pub fn certificates_of(der: &[u8]) -> Result<Vec<Vec<u8>>, CmsError> {
    let certificates = read(der)?.certificates.map(|set| set.0.into_vec()).unwrap_or_default();
    if certificates.len() > CARRIED_MAX {
        return Err(CmsError::Carrier("it has too many certificates"));
    }
    let plain =
        certificates.iter().filter_map(|choice| if let CertificateChoices::Certificate(plain) = choice { Some(plain) } else { None });
    plain.map(|certificate| Ok(certificate.to_der()?)).collect()
}

fn read(der: &[u8]) -> Result<SignedData, CmsError> {
    if der.len() > CARRIER_MAX {
        return Err(CmsError::Carrier("it is too long"));
    }
    let info = ContentInfo::from_der(der).map_err(|_| CmsError::Carrier("it is not in DER"))?;
    if info.content_type != rfc5911::ID_SIGNED_DATA {
        return Err(CmsError::Carrier("it is no SignedData"));
    }
    info.content.decode_as().map_err(|_| CmsError::Carrier("it cannot be read"))
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use super::*;

    /// Runs openssl in a folder of its own and gives the file `out`.
    fn openssl(commands: &[&str]) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("content"), b"the content").unwrap();
        let key = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key -out certificate -subj /CN=a -days 1";
        for command in [key].iter().chain(commands) {
            let done = Command::new("openssl").current_dir(&dir).args(command.split(' ')).output().unwrap();
            assert!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
        }
        fs::read(dir.path().join("out")).unwrap()
    }

    #[test]
    fn content_is_taken_out_of_what_openssl_signed() {
        let cms = openssl(&["cms -sign -binary -nodetach -in content -signer certificate -inkey key -outform DER -out out"]);
        assert_eq!(attached_content(&cms).unwrap(), b"the content");
        let detached = openssl(&["cms -sign -binary -in content -signer certificate -inkey key -outform DER -out out"]);
        assert!(attached_content(&detached).is_err());
    }

    #[test]
    fn certificates_are_taken_out_of_what_carries_nothing_else() {
        let cms = openssl(&["crl2pkcs7 -nocrl -certfile certificate -outform DER -out out"]);
        assert_eq!(certificates_of(&cms).unwrap().len(), 1);
        assert!(certificates_of(b"0").is_err());
    }
}
