//! Modules that do not run, tokens that are missing, and what tokens say of themselves and of their PINs.
//!
//! Works on what the gateway's control socket tells, or on the same told by the modules themselves when no gateway runs.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::timeout;

use super::{
    configuration,
    finding::{Findings, Fix},
    shell::{self, word},
    site::{Site, variable},
};
use crate::{
    config::ModuleSettings,
    domain::{
        key_uri::Pkcs11Uri,
        pin::{LedgerKey, LedgerRefusal},
        token::{LoginMode, PinSource, SlotState, TokenIdentity, TokenOffer},
    },
    http::control::dto::{SlotDto, SlotsDto},
    store::pin_ledger,
    token::{
        command::{Command, Reply},
        supervisor::Tokens,
    },
};

const TOKEN: &str = "token";
const PIN: &str = "pin";
const OFFER: &str = "offer";
const NO_SIGNATURE: &str = "nothing is signed with this token";

/// How the tokens came to be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// A gateway runs and has them.
    ByGateway,
    /// Here, logged in as configured.
    LoggedIn,
    /// Here, with no login.
    LookedAt,
}

/// Looks at all of them.
pub(super) fn examine(site: &Site, seen: Seen, found: &SlotsDto, findings: &mut Findings) {
    for module in &site.config.modules {
        match found.module_problems.get(&module.name) {
            Some(problem) => failing_module(site, module, problem, findings),
            None => findings.ok("module", format!("{} runs ({})", module.name, module.path.display())),
        }
    }
    missing_tokens(site, found, findings);
    let rejections = pin_ledger::rejections(&site.config.data_dir).unwrap_or_default();
    for slot in found.slots.iter().filter(|slot| slot.state != SlotState::Absent) {
        Slot { site, seen, slot, rejections: &rejections }.examine(findings);
    }
}

fn failing_module(site: &Site, module: &ModuleSettings, problem: &str, findings: &mut Findings) {
    let fix = configuration::found_elsewhere(&module.path, &site.file, &site.text)
        .or_else(|| configuration::install(&module.path, true))
        .unwrap_or_else(|| {
            Fix::by_hand(format!("install {} again, for this kind of machine, with the libraries it needs", module.path.display()))
        });
    findings.fault("module", format!("{} does not run: {problem}", module.name), "none of its tokens is seen", fix);
}

fn missing_tokens(site: &Site, found: &SlotsDto, findings: &mut Findings) {
    let is_there = |uri: &Pkcs11Uri| found.slots.iter().any(|slot| slot.state != SlotState::Absent && uri.matches_token(&identity(slot)));
    let configured = site.config.token_policies.iter().map(|policy| &policy.uri);
    let missing = configured.filter(|uri| **uri != Pkcs11Uri::default() && !is_there(uri));
    for uri in missing {
        let others: Vec<String> =
            found.slots.iter().filter(|slot| slot.state != SlotState::Absent).map(|slot| slot.uri.to_string()).collect();
        let what = if others.is_empty() { "no other is".to_owned() } else { format!("others are: {}", others.join(", ")) };
        let fix = Fix::by_hand("plug it in, or correct `uri` in the configuration; `sealgate slots` shows what is there");
        findings.fault(TOKEN, format!("{uri} is not there; {what}"), NO_SIGNATURE, fix);
    }
}

/// How long a token may take to say what it can do; its module has limits of its own.
const OFFER_MAX: Duration = Duration::from_secs(30);

/// Asks the tokens that were opened here what they can do.
pub(super) async fn offers(tokens: &Tokens, findings: &mut Findings) {
    for slot in tokens.slots().into_iter().filter(|slot| slot.status().state != SlotState::Absent) {
        if let Ok(Ok(Reply::Offer(offered))) = timeout(OFFER_MAX, slot.call(Command::Offer)).await {
            offer(&slot.token().uri(), &offered, findings);
        }
    }
}

/// Says what a token can do: which keys can be made for certificate requests, and how it signs.
pub(super) fn offer(token: &Pkcs11Uri, offered: &TokenOffer, findings: &mut Findings) {
    let named = |words: Vec<String>| if words.is_empty() { "none".to_owned() } else { words.join(", ") };
    let makes = named(offered.makes.iter().map(ToString::to_string).collect());
    let signs = named(offered.signs.iter().map(ToString::to_string).collect());
    let what = format!("{token}: makes keys {makes}; signs with {signs}");
    if offered.signs.is_empty() {
        let fix = Fix::by_hand("the gateway signs with RSA, ECDSA on P-256, P-384 and P-521, and Ed25519; see what else the token is for");
        findings.warning(OFFER, what, NO_SIGNATURE, fix);
    } else {
        findings.ok(OFFER, what);
    }
}

/// One token that is there.
struct Slot<'a> {
    site: &'a Site,
    seen: Seen,
    slot: &'a SlotDto,
    rejections: &'a BTreeMap<LedgerKey, usize>,
}

impl Slot<'_> {
    fn examine(&self, findings: &mut Findings) {
        self.state(findings);
        self.flags(findings);
        let rejected = self.rejections.get(&LedgerKey::of(&identity(self.slot))).copied().unwrap_or_default();
        if rejected > 0 && !findings.has_fault(PIN) {
            findings.ok(PIN, format!("{}: PINs it has rejected, which are not tried again: {rejected}", self.slot.uri));
        }
    }

    fn state(&self, findings: &mut Findings) {
        let SlotDto { uri, state, reason, login, .. } = self.slot;
        let what = format!("{uri}: {}", self.slot.status());
        match state {
            SlotState::Ready | SlotState::Busy => findings.ok(TOKEN, format!("{uri} takes work")),
            // Said of the configured ones above.
            SlotState::Absent => {}
            SlotState::Present => findings.ok(TOKEN, format!("{what}; each request brings its PIN")),
            SlotState::NeedsPin if self.seen == Seen::LookedAt => findings.ok(TOKEN, format!("{uri} is there; nobody was logged in")),
            SlotState::NeedsPin if *login == LoginMode::Configured && self.seen == Seen::LoggedIn => {
                findings.fault(TOKEN, format!("{what}; the configured login did not happen"), NO_SIGNATURE, self.mend_pin(false));
            }
            SlotState::NeedsPin => findings.warning(TOKEN, what, NO_SIGNATURE, self.unlock("")),
            SlotState::PinRejected if reason.contains("final") || self.slot.flags.user_pin_final_try => {
                findings.fault(PIN, what, "one more wrong PIN locks the token", self.insist());
            }
            SlotState::PinRejected => {
                let remembered =
                    [LedgerRefusal::RejectedBefore, LedgerRefusal::CutOff].iter().any(|refusal| *reason == refusal.to_string());
                findings.fault(PIN, what, "a rejected PIN is not tried again: the token would lock itself", self.mend_pin(remembered));
            }
            SlotState::PinLocked => {
                let fix = Fix::by_hand(format!("unblock the PIN with the vendor's tool, then: {}", self.forgetting()));
                findings.fault(PIN, what, NO_SIGNATURE, fix);
            }
            SlotState::WaitingAtReader => findings.warning(TOKEN, what, "a person must act", Fix::by_hand("act at the reader")),
            SlotState::Recovering => {
                findings.warning(
                    TOKEN,
                    what,
                    "it may be back in a moment",
                    Fix::by_hand("run doctor again; put the token in again if it stays so"),
                );
            }
            SlotState::Wedged => {
                let fix = Fix::by_hand("restart the gateway; use `isolation = \"process\"`, which does it by itself");
                findings.fault(TOKEN, what, "a call into the module does not return", fix);
            }
            SlotState::Quarantined => {
                findings.fault(
                    TOKEN,
                    what,
                    NO_SIGNATURE,
                    Fix::by_hand("replace the token, or correct the certificate of the key; then restart the gateway"),
                );
            }
        }
    }

    fn flags(&self, findings: &mut Findings) {
        let (uri, flags) = (&self.slot.uri, self.slot.flags);
        if !flags.user_pin_initialized && flags.login_required {
            let fix = self.init_pin();
            findings.fault(PIN, format!("{uri} has no user PIN yet"), "nobody can log in", fix);
        }
        if flags.user_pin_final_try && self.slot.state != SlotState::PinRejected {
            findings.fault(PIN, format!("{uri} has one try left"), "one more wrong PIN locks the token", self.insist());
        } else if flags.user_pin_count_low && self.slot.state != SlotState::PinRejected {
            let why = "wrong PINs were tried since the last good login; requests' PINs are refused until the next one";
            findings.warning(PIN, format!("{uri} has few tries left"), why, self.unlock(""));
        }
        if flags.write_protected {
            findings.ok(TOKEN, format!("{uri} is write-protected: it signs, but keys and certificates cannot be written"));
        }
    }

    fn pin_source(&self) -> Option<&PinSource> {
        self.site.policy(&identity(self.slot)).and_then(|policy| policy.pin.as_ref())
    }

    fn unlock(&self, options: &str) -> Fix {
        let command = self.site.unlock(options, &self.slot.uri, self.pin_source());
        match self.seen {
            Seen::ByGateway => Fix::command(command),
            Seen::LoggedIn | Seen::LookedAt => Fix::by_hand(format!("start the gateway, then: {command}")),
        }
    }

    /// The last try is for a person, never for a configured PIN.
    fn insist(&self) -> Fix {
        let command = self.site.unlock(" --insist", &self.slot.uri, None);
        match self.seen {
            Seen::ByGateway => Fix::command(command),
            Seen::LoggedIn | Seen::LookedAt => Fix::by_hand(format!("start the gateway, then: {command}")),
        }
    }

    /// Has the operator write the right PIN where the configured one stands. `forget`: the token has rejected it before, or may have.
    fn mend_pin(&self, forget: bool) -> Fix {
        let source = self.pin_source();
        let unlock = self.site.unlock(if forget { " --forget-rejection" } else { "" }, &self.slot.uri, source);
        match source {
            Some(PinSource::File(file)) => {
                let write = shell::write_pin(file, super::files::other_owner(&self.site.config.data_dir));
                // The next start of a gateway, or of doctor, reads the file; one that runs does not.
                Fix::command(if forget || self.seen == Seen::ByGateway { format!("{write} && {unlock}") } else { write })
            }
            Some(_) => {
                Fix::by_hand(format!("correct the configured PIN and start the gateway anew; if it was right: {}", self.forgetting()))
            }
            None => self.unlock(""),
        }
    }

    fn forgetting(&self) -> String {
        self.site.unlock(" --forget-rejection", &self.slot.uri, None)
    }

    /// OpenSC's tool sets a first PIN on any PKCS#11 token; it asks for the security officer's.
    fn init_pin(&self) -> Fix {
        let Some(module) = self.site.config.modules.iter().find(|module| module.name == self.slot.module) else {
            return Fix::by_hand("set a user PIN with the vendor's tool");
        };
        let conf = variable(module, "SOFTHSM2_CONF").map(|conf| format!("SOFTHSM2_CONF={} ", word(conf))).unwrap_or_default();
        let (path, label) = (word(&module.path), word(&self.slot.label));
        Fix::command(format!("{conf}pkcs11-tool --module {path} --token-label {label} --login --login-type so --init-pin"))
    }
}

/// The token of a slot.
pub(super) fn identity(slot: &SlotDto) -> TokenIdentity {
    TokenIdentity {
        module: slot.module.clone(),
        manufacturer: slot.manufacturer.clone(),
        model: slot.model.clone(),
        serial: slot.serial.clone(),
        label: slot.label.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{super::finding::Severity, *};
    use crate::{
        config::Config,
        domain::{timestamp::Timestamp, token::TokenFlags},
    };

    /// A gateway with one token, whose configured PIN stands in a file.
    fn site(folder: &tempfile::TempDir) -> Site {
        let file = folder.path().join("sealgate.toml");
        let hash = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        let text = format!(
            "data_dir = \"data\"\n[[module]]\nname = \"m\"\npath = \"sealgate.toml\"\n[[token]]\nuri = \"pkcs11:token=one\"\n\
             login = \"configured\"\npin = {{ file = \"pin\" }}\n[[caller]]\nname = \"c\"\napi_key_sha256 = \"{hash}\"\n"
        );
        fs::write(&file, &text).unwrap();
        fs::write(folder.path().join("pin"), "1234").unwrap();
        fs::set_permissions(folder.path().join("pin"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        Site { config: Config::load(&file).unwrap(), file, text }
    }

    fn examined(seen: Seen, state: SlotState, reason: &str, flags: TokenFlags) -> Vec<(&'static str, Severity, String)> {
        let folder = tempfile::tempdir().unwrap();
        let slot = SlotDto {
            uri: "pkcs11:token=one".parse().unwrap(),
            module: "m".parse().unwrap(),
            manufacturer: String::new(),
            model: String::new(),
            serial: String::new(),
            label: "one".to_owned(),
            login: LoginMode::Configured,
            state,
            reason: reason.to_owned(),
            since: Timestamp::from_millis(0),
            flags: TokenFlags { user_pin_initialized: true, login_required: true, ..flags },
            outstanding: 0,
            gateway: None,
        };
        let mut findings = Findings::default();
        let rejections = BTreeMap::new();
        Slot { site: &site(&folder), seen, slot: &slot, rejections: &rejections }.examine(&mut findings);
        let fix = |fix: &Option<Fix>| match fix {
            Some(Fix::Command(command)) => format!("$ {command}"),
            Some(Fix::ByHand(sentence)) => sentence.clone(),
            None => String::new(),
        };
        findings.all().iter().map(|finding| (finding.check, finding.severity, fix(&finding.fix))).collect()
    }

    #[test]
    fn the_last_try_is_for_a_person_and_never_for_a_file() {
        let flags = TokenFlags { user_pin_final_try: true, ..TokenFlags::default() };
        for (seen, command) in [(Seen::ByGateway, true), (Seen::LoggedIn, false)] {
            let found = examined(seen, SlotState::PinRejected, "the token warns", flags);
            let [(PIN, Severity::Fault, fix)] = found.as_slice() else { panic!("{found:?}") };
            assert!(fix.contains("--insist") && !fix.contains("--pin-file") && fix.starts_with("$ ") == command, "{fix}");
        }
    }

    #[test]
    fn a_gateway_that_runs_is_told_of_the_corrected_pin() {
        let fix_of = |seen, reason: &str| examined(seen, SlotState::PinRejected, reason, TokenFlags::default()).remove(0).2;
        let before = LedgerRefusal::RejectedBefore.to_string();
        assert!(!fix_of(Seen::LoggedIn, "just now").contains("unlock"));
        assert!(fix_of(Seen::LoggedIn, &before).contains("--forget-rejection"));
        let running = fix_of(Seen::ByGateway, "just now");
        assert!(running.contains("unlock") && running.contains("--pin-file") && !running.contains("--forget-rejection"), "{running}");
    }

    #[test]
    fn what_tokens_say_of_their_pins_is_passed_on() {
        let said = |state, flags| {
            let found = examined(Seen::ByGateway, state, "", flags);
            found
                .into_iter()
                .filter(|(_, severity, _)| *severity != Severity::Ok)
                .map(|(check, severity, _)| (check, severity))
                .collect::<Vec<_>>()
        };
        let none = TokenFlags::default();
        assert_eq!(said(SlotState::Ready, none), []);
        assert_eq!(said(SlotState::Ready, TokenFlags { write_protected: true, ..none }), []);
        assert_eq!(said(SlotState::Ready, TokenFlags { user_pin_count_low: true, ..none }), [(PIN, Severity::Warning)]);
        assert_eq!(said(SlotState::PinLocked, TokenFlags { user_pin_locked: true, ..none }), [(PIN, Severity::Fault)]);
        assert_eq!(said(SlotState::NeedsPin, none), [(TOKEN, Severity::Warning)]);
        assert_eq!(said(SlotState::Wedged, none), [(TOKEN, Severity::Fault)]);
        assert_eq!(said(SlotState::Quarantined, none), [(TOKEN, Severity::Fault)]);
    }
}
