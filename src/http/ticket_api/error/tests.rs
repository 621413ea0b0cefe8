//! The whole table, as clients see it.

use std::fmt::Write as _;

use super::*;
use crate::domain::{
    ticket::{CadesType, EmbedCertificate},
    timestamp::Timestamp,
    token::{SlotState, SlotStatus},
};
use crate::ticket::LevelError;

const START: Operation = Operation::StartSignature;
const FETCH: Operation = Operation::FetchSignature;
const UPLOAD: Operation = Operation::UploadData;

fn requests() -> Vec<ApiError> {
    let retry_after = Duration::from_secs(3);
    let limits = [AccessError::TooManyRequests { retry_after }, AccessError::TooManyWaiting { retry_after }];
    let access = [AccessError::UnknownCaller, AccessError::ForeignOrigin, AccessError::ForeignHost, AccessError::MissingScope];
    let access = access.into_iter().chain(limits).map(Problem::from);
    let routes = [RouteError::Unknown, RouteError::Method { allow: "GET" }, RouteError::KeyType, RouteError::Language];
    let routes = routes.into_iter().chain([RouteError::NoKeyReady]).map(Problem::from);
    access.chain(routes).map(|problem| Operation::Other.error(problem)).collect()
}

fn bodies() -> Vec<ApiError> {
    let reads = [BodyReadError::TooLong { limit: 100 }, BodyReadError::TooSlow, BodyReadError::Broken].map(BodyError::Read);
    let mut errors: Vec<_> = reads.into_iter().map(|error| UPLOAD.error(error)).collect();
    let in_uploads = [BodyError::ContentType, BodyError::Form, BodyError::MissingElement("element"), BodyError::Base64("base64Data")];
    errors.extend(in_uploads.map(|error| UPLOAD.error(error)));
    let in_starts =
        [BodyError::PermissionId, BodyError::PinMissing, BodyError::BadPin, BodyError::PinAndPermission, BodyError::IdempotencyKey];
    errors.extend(in_starts.map(|error| START.error(error)));
    errors.extend([BodyError::KeyUri(UriError::Scheme), BodyError::KeyContainer].map(|error| Operation::ChooseKey.error(error)));
    for operation in [UPLOAD, Operation::SetMetadata] {
        errors.extend([BodyError::NotJson, BodyError::MissingMember("member")].map(|error| operation.error(error)));
    }
    errors.push(Operation::AskPermission.error(BodyError::PermissionUses));
    errors.push(Operation::SetOptions.error(OptionError::BadValue { option: "cadesType", allowed: "a, b".to_owned() }));
    errors.push(Operation::SetOptions.error(OptionError::BadText { option: "caId", max: 9 }));
    errors
}

fn permits() -> Vec<ApiError> {
    let refusals = [PermitRefusal::Unknown, PermitRefusal::UsedUp, PermitRefusal::Expired, PermitRefusal::Revoked];
    let reads = refusals.map(|refusal| Operation::ReadPermission.error(PermitError::Refused(refusal)));
    let asks = [PermitError::Uses { max: 9 }, PermitError::StoreUnavailable].map(|error| Operation::AskPermission.error(error));
    let starts = refusals.map(|refusal| START.error(TicketError::Submit(SubmitError::Permit(refusal))));
    reads.into_iter().chain(asks).chain(starts).collect()
}

fn tickets() -> Vec<ApiError> {
    let everywhere = [
        TicketError::Missing,
        TicketError::TooMany { limit: 9 },
        TicketError::Frozen,
        TicketError::TooLarge { limit: 100 },
        TicketError::SpoolFull,
        TicketError::SpoolUnavailable,
        TicketError::StoreUnavailable,
        TicketError::Overtaken,
        TicketError::KeyReused,
        TicketError::SeveralObjects,
        TicketError::SameName("a.txt".to_owned()),
        TicketError::TooManyObjects { max: 9 },
    ];
    let starts = [
        TicketError::NoContent,
        TicketError::NoCertificate,
        TicketError::TimeStampsAlone,
        TicketError::UnknownToken,
        TicketError::Unsupported(UnsupportedOption::EmbedCertificate(EmbedCertificate::SignerAndCaCert)),
        TicketError::Cms(crate::cms::CmsError::SignatureValue),
        TicketError::ContentTimeStamp(LevelError::Busy),
        TicketError::Level(LevelError::Busy),
    ];
    let bulks =
        [BulkError::Count { max: 9 }, BulkError::Attached, BulkError::AlreadySigned, BulkError::HashLength { len: 5 }, BulkError::TimedOut];
    let mut errors: Vec<_> = everywhere.into_iter().map(|error| UPLOAD.error(error)).collect();
    errors.extend(starts.into_iter().chain(bulks.map(TicketError::Bulk)).map(|error| START.error(error)));
    errors.push(Operation::SetMetadata.error(TicketError::NoContent));
    errors.push(FETCH.error(TicketError::NotRequested));
    errors.extend([TicketError::NoSignature, TicketError::VerifierBusy].map(|error| Operation::StartVerification.error(error)));
    errors.extend([TicketError::NotVerified, TicketError::NoContent].map(|error| Operation::FetchVerification.error(error)));
    let not_a_signature = TicketError::NoSuchSignature("detail".to_owned());
    errors.extend([TicketError::Detached, not_a_signature].map(|error| Operation::FetchSignedData.error(error)));
    errors.push(Operation::UploadSignature.error(TicketError::Armor));
    errors.extend(existing());
    let options = [
        UnsupportedOption::CadesType(CadesType::XLong),
        UnsupportedOption::SignatureTs,
        UnsupportedOption::DataTs,
        UnsupportedOption::EmbedCertificate(EmbedCertificate::SignerCertAndCaInfo),
        UnsupportedOption::CadesWithoutCertificate,
        UnsupportedOption::UnknownAuthority { known: vec!["one".to_owned(), "two".to_owned()] },
        UnsupportedOption::ForeignAuthority,
        UnsupportedOption::AsicForm(AsicForm::S),
    ];
    errors.extend(options.map(|error| Operation::SetOptions.error(TicketError::Unsupported(error))));
    errors
}

fn existing() -> Vec<ApiError> {
    let detail = || "detail".to_owned();
    let existing = [
        ExistingError::NotASignature(detail()),
        ExistingError::Broken { number: 2, why: detail() },
        ExistingError::NoDocument,
        ExistingError::TooManySigners,
        ExistingError::SameSigner,
    ];
    let modify = [
        ModifyError::Container,
        ModifyError::ContentTimeStamp,
        ModifyError::NotCades { number: 2 },
        ModifyError::Sealed { number: 2 },
        ModifyError::Path { number: 2, why: detail() },
        ModifyError::TooLong,
    ];
    let fetched = [TicketError::NotRequested, TicketError::Level(LevelError::Busy)];
    let starts = existing.into_iter().map(|error| START.error(TicketError::Existing(error)));
    let modifies = modify.into_iter().map(|error| Operation::StartModification.error(TicketError::Modify(error)));
    starts.chain(modifies).chain(fetched.map(|error| Operation::FetchModification.error(error))).collect()
}

fn keys_and_jobs() -> Vec<ApiError> {
    let status = SlotStatus { state: SlotState::NeedsPin, reason: "because".to_owned(), since: Timestamp::from_millis(0) };
    let detail = || "detail".to_owned();
    let denials = vec![
        Denied::NoKey,
        Denied::UnknownKey("secret-name".parse().unwrap()),
        Denied::ForeignKey,
        Denied::TokenAbsent,
        Denied::TokenAmbiguous(2),
        Denied::KeyNotFound,
        Denied::KeyAmbiguous(2),
        Denied::SlotUnavailable(status),
        Denied::NotSupported(detail()),
        Denied::NoPublicKey,
        Denied::PinRefused(detail()),
        Denied::CertificateNotInForce(CertificateFault::NotYetValid(Timestamp::from_millis(0))),
        Denied::CertificateNotInForce(CertificateFault::Expired(Timestamp::from_millis(0))),
        Denied::CertificateNotInForce(CertificateFault::Replaced),
        Denied::Quarantined,
        Denied::Device(detail()),
    ];
    let mut errors: Vec<_> = denials.into_iter().map(|denied| START.error(TicketError::Denied(denied))).collect();
    let full = SubmitError::QueueFull { bound: 9, retry_after: Duration::from_secs(7) };
    errors.extend([full, SubmitError::Overtaken, SubmitError::StoreUnavailable].map(|error| START.error(TicketError::Submit(error))));
    let causes = [
        FailureCause::PinRefused,
        FailureCause::PinForgotten,
        FailureCause::KeyNotUsable,
        FailureCause::NotSupported,
        FailureCause::Device,
        FailureCause::WrongSignature,
        FailureCause::OutcomeUnknown,
        FailureCause::DeadlinePassed,
        FailureCause::Cancelled,
    ];
    errors.extend(causes.map(|cause| FETCH.error(TicketError::NotSigned { cause, detail: detail() })));
    errors
}

#[test]
fn the_table_of_errors() {
    let messages = Messages::embedded();
    let mut table = String::new();
    for error in [requests(), bodies(), permits(), tickets(), keys_and_jobs()].concat() {
        let Wire { status, message, cause, retry_after } = error.wire();
        assert_eq!(cause.is_some(), status == StatusCode::INTERNAL_SERVER_ERROR, "{error}");
        assert_eq!(retry_after.is_some(), matches!(status.as_u16(), 429 | 503), "{error}");
        let retry = retry_after.map_or_else(String::new, |after| format!(" Retry-After: {}", after.as_secs()));
        writeln!(table, "{error}\n  {}{retry}", status.as_u16()).unwrap();
        for language in Language::ALL {
            write!(table, "  {language:?}: {}", messages.text(language, &message)).unwrap();
            let said = cause.as_ref().map(|cause| messages.text(language, cause));
            writeln!(table, "{}", said.map_or_else(String::new, |cause| format!(" | {cause}"))).unwrap();
        }
    }
    insta::assert_snapshot!(table);
}

#[test]
fn no_answer_shows_what_is_inside() {
    let messages = Messages::embedded();
    for error in [requests(), bodies(), permits(), tickets(), keys_and_jobs()].concat() {
        let Wire { message, cause, .. } = error.wire();
        for text in [Some(message), cause].into_iter().flatten() {
            let said = messages.text(Language::En, &text);
            for inside in ["secret-name", "Error", "::", "src/", "CmsError", "signature value"] {
                assert!(!said.contains(inside), "{error}: {said}");
            }
        }
    }
}
