//! Which options of a ticket can be served.

use super::{TicketError, TicketService, UnsupportedOption, refuse_frozen};
use crate::{
    domain::{
        caller::Caller,
        ids::TicketId,
        ticket::{AsicForm, CadesType, DataToSign, EmbedCertificate, SignatureOptions, SignatureType, Ticket},
    },
    pki::{Certificate, trust::authority_id},
};

/// How many CAs a client is told of that named one which is not known.
const AUTHORITIES_TOLD: usize = 20;

impl TicketService {
    /// Changes a ticket's options and returns all that are in force. All changes are made, or none.
    ///
    /// # Errors
    /// [`TicketError::Unsupported`] names the first option that cannot be served; [`TicketError::Missing`], [`TicketError::Frozen`],
    /// [`TicketError::StoreUnavailable`].
    pub async fn set_options(
        &self,
        caller: &Caller,
        id: TicketId,
        set: impl Fn(&mut SignatureOptions),
    ) -> Result<SignatureOptions, TicketError> {
        let apply = |ticket: &mut Ticket| {
            refuse_frozen(ticket)?;
            set(&mut ticket.options);
            check_supported(&ticket.options, self.available())?;
            self.check_authority(&ticket.options)?;
            Ok(ticket.options.clone())
        };
        let mut wanted = self.load(caller, id).await?;
        let in_force = apply(&mut wanted)?;
        let refusal = if matches!(in_force.cades_type, CadesType::C | CadesType::XLong) {
            Some(UnsupportedOption::CadesType(in_force.cades_type))
        } else {
            let choice = in_force.embed_certificate;
            let wants_cas = matches!(choice, EmbedCertificate::SignerAndCaCert | EmbedCertificate::SignerCertAndCaInfo);
            wants_cas.then_some(UnsupportedOption::EmbedCertificate(choice))
        };
        if let Some(refusal) = refusal {
            self.check_chain(caller, &wanted, refusal).await?;
        }
        self.change(caller, id, apply).await
    }

    fn available(&self) -> Available {
        Available { time_stamps: self.time_stamps.as_ref().is_some_and(|stamps| stamps.are_available()), evidence: self.evidence.is_some() }
    }

    /// Refuses a CA that is not known here.
    fn check_authority(&self, options: &SignatureOptions) -> Result<(), UnsupportedOption> {
        let trust = self.trust.current();
        match &options.ca_id {
            Some(id) if trust.authority(id).is_none() => {
                Err(UnsupportedOption::UnknownAuthority { known: trust.authorities().map(authority_id).take(AUTHORITIES_TOLD).collect() })
            }
            _ => Ok(()),
        }
    }

    /// Refuses to promise CA certificates that nobody has, or evidence by another CA than the key's. A key that cannot be looked at now is judged when it is used.
    async fn check_chain(&self, caller: &Caller, ticket: &Ticket, refusal: UnsupportedOption) -> Result<(), TicketError> {
        match self.authorise(caller, ticket, None, None).await {
            Ok(authorised) if authorised.key().chain.is_empty() => Err(refusal.into()),
            Ok(authorised) => {
                let chain = &authorised.key().chain;
                let wanted = ticket.options.ca_id.as_ref().filter(|_| matches!(refusal, UnsupportedOption::CadesType(_)));
                let is_there = wanted.is_none_or(|id| path_up_to(chain, id).is_some());
                if is_there { Ok(()) } else { Err(UnsupportedOption::ForeignAuthority.into()) }
            }
            Err(_) => Ok(()),
        }
    }
}

/// The CA certificates of a chain up to the CA with this id, which ends it; `None` if it is not there.
pub(super) fn path_up_to<'a>(chain: &'a [Vec<u8>], id: &str) -> Option<&'a [Vec<u8>]> {
    let is_named = |der: &Vec<u8>| Certificate::from_der(der).is_ok_and(|certificate| authority_id(&certificate) == id);
    chain.iter().position(is_named).map(|at| &chain[..=at])
}

/// What this gateway has beside keys.
#[derive(Debug, Clone, Copy)]
struct Available {
    time_stamps: bool,
    evidence: bool,
}

/// Checks that signatures can be made as these options say.
///
/// Options about verifying have no part in a signature; they are kept for the calls that use them.
fn check_supported(options: &SignatureOptions, available: Available) -> Result<(), UnsupportedOption> {
    let plain = options.cades_type == CadesType::Undefined;
    match options.cades_type {
        CadesType::Undefined | CadesType::Bes => {}
        CadesType::T if available.time_stamps => {}
        CadesType::C | CadesType::XLong if available.time_stamps && available.evidence => {}
        other @ (CadesType::T | CadesType::C | CadesType::XLong) => return Err(UnsupportedOption::CadesType(other)),
    }
    if options.embed_certificate == EmbedCertificate::Nothing && !plain {
        return Err(UnsupportedOption::CadesWithoutCertificate);
    }
    // With a CAdES form, the form says which time stamps there are.
    if plain && options.embed_signature_ts && !available.time_stamps {
        return Err(UnsupportedOption::SignatureTs);
    }
    if plain && options.embed_data_ts && !available.time_stamps {
        return Err(UnsupportedOption::DataTs);
    }
    // The document stands in the container, beside its signature, which is made with it.
    let elsewhere = options.signature_type == SignatureType::Attached || options.data_to_sign == DataToSign::AlreadySigned;
    if options.asic_form != AsicForm::None && elsewhere {
        return Err(UnsupportedOption::AsicForm(options.asic_form));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(set: impl FnOnce(&mut SignatureOptions)) -> Result<(), UnsupportedOption> {
        let mut options = SignatureOptions::default();
        set(&mut options);
        check_supported(&options, Available { time_stamps: false, evidence: true })
    }

    #[test]
    fn what_is_made_now_is_taken() {
        assert_eq!(check(|_| {}), Ok(()));
        assert_eq!(check(|options| options.cades_type = CadesType::Bes), Ok(()));
        assert_eq!(check(|options| options.embed_certificate = EmbedCertificate::Nothing), Ok(()));
    }

    #[test]
    fn what_comes_later_is_refused_by_name() {
        for form in [CadesType::T, CadesType::C, CadesType::XLong] {
            assert_eq!(check(|options| options.cades_type = form), Err(UnsupportedOption::CadesType(form)));
        }
        assert_eq!(check(|options| options.data_to_sign = DataToSign::AlreadySigned), Ok(()));
        for form in [AsicForm::S, AsicForm::E] {
            assert_eq!(check(|options| options.asic_form = form), Ok(()));
            let attached = |options: &mut SignatureOptions| {
                options.asic_form = form;
                options.signature_type = SignatureType::Attached;
            };
            assert_eq!(check(attached), Err(UnsupportedOption::AsicForm(form)));
            let beside = |options: &mut SignatureOptions| {
                options.asic_form = form;
                options.data_to_sign = DataToSign::AlreadySigned;
            };
            assert_eq!(check(beside), Err(UnsupportedOption::AsicForm(form)));
        }
    }

    #[test]
    fn time_stamps_are_refused_only_where_the_form_does_not_decide_about_them() {
        assert_eq!(check(|options| options.embed_signature_ts = true), Err(UnsupportedOption::SignatureTs));
        assert_eq!(check(|options| options.embed_data_ts = true), Err(UnsupportedOption::DataTs));
        let in_form = |options: &mut SignatureOptions| {
            *options = SignatureOptions { cades_type: CadesType::Bes, embed_signature_ts: true, embed_data_ts: true, ..options.clone() };
        };
        assert_eq!(check(in_form), Ok(()));
    }

    #[test]
    fn a_cades_signature_needs_its_certificate() {
        let without = |options: &mut SignatureOptions| {
            options.cades_type = CadesType::Bes;
            options.embed_certificate = EmbedCertificate::Nothing;
        };
        assert_eq!(check(without), Err(UnsupportedOption::CadesWithoutCertificate));
    }
}
