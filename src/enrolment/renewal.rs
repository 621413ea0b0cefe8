//! Certificates that come to their end: who is told, and renewal by the gateway itself.

use std::time::Duration;

use tracing::{info, warn};
use uuid::Uuid;

use super::{ACTIVE_MAX, EnrolmentError, EnrolmentService, clerk::BY_GATEWAY};
use crate::{
    domain::{
        audit::AuditEvent,
        certificate::validity,
        enrolment::{Draft, EXPIRY_MARKS, Enrolment, EnrolmentState, ExternalId, Step},
        ids::{EnrolmentId, KeyName},
        timestamp::Timestamp,
    },
    store::{Change, EnrolmentFilter},
};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// An active certificate and how long it is valid still.
#[derive(Debug, Clone)]
pub struct Expiring {
    /// Its request.
    pub enrolment: Enrolment,
    /// The beginning of its last second.
    pub not_after: Timestamp,
    /// How long it is valid still; nothing once it is over.
    pub left: Duration,
    /// How long it is valid in all.
    pub lifetime: Duration,
}

/// What is told of a certificate that comes to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpiryWarning {
    /// The key that signs with it.
    pub key: KeyName,
    /// Its end.
    pub not_after: Timestamp,
    /// Whole days until then.
    pub days_left: u32,
}

impl Expiring {
    /// Whole days until its end; 0 on its last day and afterwards.
    #[must_use]
    pub fn days_left(&self) -> u32 {
        u32::try_from(self.left.as_secs() / DAY.as_secs()).unwrap_or(u32::MAX)
    }

    /// Whether it is over.
    #[must_use]
    pub const fn expired(&self) -> bool {
        self.left.is_zero()
    }
}

impl EnrolmentService {
    /// The active certificates that expire within `days`, the first to expire coming first.
    ///
    /// # Errors
    /// The store was not reached.
    pub async fn expiring(&self, days: u32) -> Result<Vec<Expiring>, EnrolmentError> {
        let active = EnrolmentFilter { active: true, ..EnrolmentFilter::default() };
        let now = self.parts.store.now();
        let mut found: Vec<_> = Vec::new();
        for enrolment in self.parts.store.list_enrolments(&active, ACTIVE_MAX).await? {
            let Some(validity) = enrolment.issued.as_ref().and_then(|issued| validity(&issued.certificate)) else { continue };
            let left = validity.not_after.since(now);
            if left <= DAY * days {
                let lifetime = validity.not_after.since(validity.not_before);
                found.push(Expiring { enrolment, not_after: validity.not_after, left, lifetime });
            }
        }
        found.sort_by_key(|expiring| expiring.not_after);
        Ok(found)
    }

    /// Tells of certificates that come to their end, and renews those that the CA renews. Of several gateways on one store one tells.
    ///
    /// # Errors
    /// The store was not reached.
    pub async fn look_at_validity(&self) -> Result<(), EnrolmentError> {
        let renew_days = self.parts.renew_days.unwrap_or(0);
        for expiring in self.expiring(EXPIRY_MARKS[0].max(renew_days)).await? {
            let former = expiring.enrolment.id;
            // One that lives shorter than that would be renewed again at once.
            if expiring.left < (DAY * renew_days).min(expiring.lifetime / 2)
                && let Err(error) = self.renew(&expiring.enrolment).await
                && error != EnrolmentError::Overtaken
            {
                warn!(enrolment.id = %former, error = %error, "a certificate could not be renewed");
            }
            match self.tell(expiring).await {
                Ok(()) | Err(EnrolmentError::Overtaken | EnrolmentError::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Tells of a certificate if a mark was reached that was not told of. It is told once it is stored that it is told.
    async fn tell(&self, expiring: Expiring) -> Result<(), EnrolmentError> {
        let (days_left, expired, not_after) = (expiring.days_left(), expiring.expired(), expiring.not_after);
        let mut enrolment = expiring.enrolment;
        if !enrolment.note_expiry(expiring.left) {
            return Ok(());
        }
        let name = enrolment.key_name.clone();
        let event = AuditEvent::CertificateExpires {
            enrolment: enrolment.id,
            organisation: enrolment.organisation.clone(),
            login: enrolment.login.clone(),
            key_name: name.clone(),
            days_left,
            expired,
        };
        self.parts.store.commit(vec![Change::UpdateEnrolment(Box::new(enrolment)), Change::Audit(event)]).await?;
        if expired {
            warn!(key.name = %name, "the certificate of {name} has expired; the key signs nothing until it is renewed");
        } else {
            warn!(key.name = %name, days = days_left, "the certificate of {name} expires at {}; renew it", not_after.to_rfc3339());
        }
        // Nobody may listen, or too slowly; the log and the metric tell as well.
        if let Some(warnings) = &self.parts.warnings {
            let _ = warnings.try_send(ExpiryWarning { key: name, not_after, days_left });
        }
        Ok(())
    }

    /// Asks the CA for another certificate of the same key, unless that was done or the CA does not renew.
    async fn renew(&self, former: &Enrolment) -> Result<(), EnrolmentError> {
        let profile = self.profile(&former.profile)?;
        if !self.parts.authorities.get(&profile.ca).is_some_and(|ca| ca.renews()) {
            return Ok(());
        }
        let (Some(request), Some(_)) = (&former.request, &former.key) else { return Ok(()) };
        // Made of the former one's id, so that it is made once, by however many gateways.
        let external_id: ExternalId = renewal_id(former.id);
        match self.parts.store.find_enrolment(EnrolmentId::of(&former.organisation, &external_id)).await? {
            // Its token was away when the CA had issued.
            Some(renewal) if renewal.state == EnrolmentState::Issued => {
                self.activate_renewal(renewal).await;
                return Ok(());
            }
            Some(_) => return Ok(()),
            None => {}
        }
        let Enrolment { organisation, caller, login, profile, key_name, application, body, fingerprint, .. } = former.clone();
        let (key_made_here, renews) = (former.key_made_here, Some(former.id));
        let draft =
            Draft { organisation, external_id, caller, login, profile, key_name, application, body, fingerprint, key_made_here, renews };
        let now = self.parts.store.now();
        let mut renewal = draft.accepted(now, BY_GATEWAY);
        let created = AuditEvent::of_step(&renewal);
        let step = Step::Prepared { request: request.0.clone(), key: former.key.clone(), confirm: false, approved: true };
        renewal.step(step, now, BY_GATEWAY)?;
        let prepared = AuditEvent::of_step(&renewal);
        info!(enrolment.id = %renewal.id, key.name = %renewal.key_name, "the certificate of {} is renewed", renewal.key_name);
        self.parts.store.commit(vec![Change::InsertEnrolment(Box::new(renewal)), Change::Audit(created), Change::Audit(prepared)]).await?;
        self.wake.notify_one();
        Ok(())
    }
}

fn renewal_id(former: EnrolmentId) -> ExternalId {
    let hash = crate::domain::audit::Sha256::of(&[b"Sealgate renewal\0", former.as_uuid().as_bytes().as_slice()].concat());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.as_bytes()[..16]);
    // INVARIANT: a UUID is written in lower-case hex digits.
    #[allow(clippy::expect_used)]
    Uuid::from_bytes(bytes).hyphenated().to_string().parse().expect("a UUID is an external id")
}
