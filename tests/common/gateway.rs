//! A whole gateway in the test's own process, on a port of its own: services, HTTP and control socket, over whatever tokens the test wants.
//!
//! Modules run as in production, in children of the `sealgate` program; only the command line and the configuration file are missing.

use std::{
    collections::HashMap,
    fs,
    net::{IpAddr, Ipv4Addr, TcpListener},
    os::unix::net::UnixListener,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use reqwest::{Method, RequestBuilder, header::HeaderMap};
use sealgate::{
    audit::desk::AuditDesk,
    auth::{ApiKeyHash, BookSettings, CallerBook, CallerEntry, Operators, SessionSettings},
    domain::{
        algorithm::{Curve, KeyKind},
        caller::{Caller, ConsentPolicy, KeyAccess, Provenance, Scopes},
        enrolment::profile::{CaChoice, Profile},
        key::ConfiguredKey,
        pin::Pin,
        timestamp::Timestamp,
        token::{KeyPairSpec, LoginMode, PinSource, SlotState, TokenPolicy},
    },
    enrolment::{EnrolmentParts, EnrolmentService, ca::CertificateAuthority},
    http::{
        app::{HttpSettings, Services, TsaDoor},
        server::{Listener, Server},
        tls::{Tls, TlsFiles},
    },
    permit::{PermitService, PermitSettings},
    pki::{
        Certificate, DevCa, Validity,
        fetch::Fetcher,
        revocation::{RevocationClient, RevocationSettings, RevocationSource, SourcePlace},
        trust::{Trust, TrustStore},
        tsa::{TsaClient, TsaSettings},
    },
    signing::service::{SigningService, SigningSettings},
    stamping::{Authority, AuthoritySettings, StampSettings, StampSource, TimeStamps},
    store::{Store, memory::MemoryStore, pin_ledger::StoredPinLedger},
    ticket::{TicketService, TicketSettings},
    token::{
        command::{CertificateOrder, Command, Reply},
        fake::Script,
        pkcs11::ModuleOptions,
        slot::SlotHandle,
        supervisor::{Isolation, ModuleSettings, ModuleSource, TokenSettings, Tokens},
        watchdog::CallLimits,
    },
};
use serde_json::Value;
use tempfile::TempDir;

use super::{
    softhsm::{SoftHsm, TOKEN_LABEL, USER_PIN},
    tsa::TestTsa,
};

/// After so long a test that waits for an event has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The API key of the caller `ci`, whose default key is the first.
pub const CI_KEY: &str = "ci0000000000000000000000000000000000ci";
/// The API key of the caller `other`, who has no default key.
pub const OTHER_KEY: &str = "other00000000000000000000000000000ther";
/// The only origin of the caller `page`, who has no API key.
pub const PAGE_ORIGIN: &str = "https://page.example";
/// The origin at which pages that hold `ci`'s key may live.
pub const CI_ORIGIN: &str = "https://ci.example";

/// A gateway to be. Its parts may be changed before it starts.
pub struct Plan {
    pub directory: TempDir,
    pub ca: DevCa,
    pub modules: Vec<ModuleSettings>,
    pub policies: Vec<TokenPolicy>,
    pub keys: Vec<ConfiguredKey>,
    pub callers: Vec<CallerEntry>,
    /// One listener for each; the caller that it is bound to, if any.
    pub listeners: Vec<Option<&'static str>>,
    /// Where they listen.
    pub address: IpAddr,
    /// What they speak TLS with; `None` for plain HTTP.
    pub tls: Option<TlsFiles>,
    pub tickets: TicketSettings,
    /// Whom the gateway trusts.
    pub trust: TrustStore,
    pub http: HttpSettings,
    pub signing: SigningSettings,
    pub permits: PermitSettings,
    pub store: Arc<dyn Store>,
    pub profiles: Vec<Profile>,
    pub renew_days: Option<u32>,
    pub authorities: HashMap<CaChoice, Arc<dyn CertificateAuthority>>,
    /// Time-stamping authorities; without any, a key whose name begins with `tsa` makes the time stamps.
    pub tsa_urls: Vec<String>,
    /// How long a time stamp may take.
    pub tsa_total: Duration,
    /// Serial numbers of the certificates of keys that were made, in hex.
    pub serials: Vec<String>,
    /// Where evidence comes from that certificates are not revoked.
    pub evidence: Option<RevocationSettings>,
}

/// A gateway that runs.
pub struct Gateway {
    pub directory: TempDir,
    pub ca: DevCa,
    pub keys: Vec<ConfiguredKey>,
    pub urls: Vec<String>,
    pub control_socket: PathBuf,
    pub tokens: Tokens,
    pub store: Arc<dyn Store>,
    pub tickets: Arc<TicketService>,
    pub permits: Arc<PermitService>,
    pub callers: Arc<CallerBook>,
    pub operators: Arc<Operators>,
    pub enrolment: Arc<EnrolmentService>,
    pub signing: Arc<SigningService>,
    pub server: Server,
    http: reqwest::Client,
}

/// An answer of the ticket API that has the form that every answer of it has.
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Plan {
    /// A gateway without any token.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let tickets = TicketSettings::new(directory.path().join("spool"));
        let ca = DevCa::create("Test CA", validity(0)).unwrap();
        Self {
            trust: TrustStore::new(vec![ca.certificate().clone()], Vec::new()),
            ca,
            modules: Vec::new(),
            policies: Vec::new(),
            keys: Vec::new(),
            callers: vec![
                entry("ci", Some(CI_KEY), &[CI_ORIGIN]),
                entry("other", Some(OTHER_KEY), &[]),
                entry("page", None, &[PAGE_ORIGIN]),
                entry("old", None, &[]),
            ],
            listeners: vec![None],
            address: Ipv4Addr::LOCALHOST.into(),
            tls: None,
            tickets,
            http: HttpSettings { workers: 2, ..HttpSettings::default() },
            // Tests count signatures, and choose which of them waits.
            signing: SigningSettings { canary_every: None, ..SigningSettings::default() },
            permits: PermitSettings::default(),
            store: Arc::new(MemoryStore::new()),
            profiles: Vec::new(),
            renew_days: None,
            authorities: HashMap::new(),
            tsa_urls: Vec::new(),
            tsa_total: PATIENCE,
            serials: Vec::new(),
            evidence: None,
            directory,
        }
    }

    /// A gateway over a scripted token whose keys get certificates; it logs in with the PIN of requests, or is ready with a configured one.
    pub fn scripted(script: &Script, login: LoginMode, keys: &[&str]) -> Self {
        let mut plan = Self::new();
        plan.add_scripted("fake", script, keys);
        plan.login(login, sealgate::token::fake::FAKE_PIN, 1024);
        plan
    }

    /// Adds a scripted token, by itself in a module of this name, with keys of which no other token has one of the same label.
    pub fn add_scripted(&mut self, module: &str, script: &Script, keys: &[&str]) {
        self.modules.push(ModuleSettings {
            options: ModuleOptions::named(module.parse().unwrap()),
            source: ModuleSource::Loaded(Arc::new(script.module())),
            isolation: Isolation::Thread,
            limits: CallLimits::default(),
        });
        let mut token = String::new();
        script.change_identity(|identity| token.clone_from(&identity.label));
        for (n, label) in keys.iter().enumerate() {
            let key = script.add_key(&[n as u8 + 1], label);
            let certificate = self.ca.issue(&key.public_key.unwrap(), label, validity(1)).unwrap();
            self.add_key(label, Some(certificate.as_der().to_vec()));
            let uri = format!("pkcs11:token={token};object={label}");
            self.keys.last_mut().unwrap().uri = uri.parse().unwrap();
        }
    }

    /// A gateway over a private SoftHSM with these keys, made on the token, with certificates on the token beside them.
    pub async fn softhsm(keys: &[(&str, KeyKind)], queue_bound: usize) -> Self {
        let mut plan = Self::new();
        let hsm = SoftHsm::in_directory(plan.directory.path());
        hsm.init_token(TOKEN_LABEL);
        let environment = hsm.environment().into_iter().map(|(name, value)| (name.to_owned(), value.into_string().unwrap()));
        plan.modules.push(ModuleSettings {
            options: ModuleOptions::named("softhsm".parse().unwrap()),
            source: ModuleSource::Library(SoftHsm::module()),
            isolation: Isolation::Process(environment.collect()),
            limits: CallLimits::default(),
        });
        plan.login(LoginMode::Configured, USER_PIN, queue_bound);
        let tokens = plan.start_tokens();
        let slot = ready(&tokens).await.remove(0);
        for (n, (label, kind)) in keys.iter().enumerate() {
            plan.make_key(&slot, vec![n as u8 + 1], label, kind.clone()).await;
        }
        tokens.stop().await;
        plan
    }

    /// Two private SoftHSMs, each with one key of its own name: the first behind `pkcs11-faults` with its bench in `bench.sock`, the second as it is.
    ///
    /// Both log in with a configured PIN; a call into the first is taken for one that never returns after `limits`.
    pub async fn troubled_beside_healthy(names: [&'static str; 2], limits: CallLimits) -> (Self, pkcs11_faults::bench::Bench) {
        use pkcs11_faults::{bench::Bench, module_path, variables};
        let mut plan = Self::new();
        let bench = Bench::listen(&plan.directory.path().join("bench.sock"), None).unwrap();
        for (name, troubled) in names.into_iter().zip([true, false]) {
            let hsm = SoftHsm::in_directory(&plan.directory.path().join(name));
            hsm.init_token(name);
            let mut environment = hsm.environment();
            if troubled {
                let in_directory = |name: &str| plan.directory.path().join(name).into_os_string();
                environment.push((variables::MODULE, SoftHsm::module().into_os_string()));
                environment.push((variables::CONTROL, in_directory("bench.sock")));
                environment.push((variables::LOG, in_directory("token.log")));
            }
            let environment = environment.into_iter().map(|(name, value)| (name.to_owned(), value.into_string().unwrap()));
            plan.modules.push(ModuleSettings {
                options: ModuleOptions::named(name.parse().unwrap()),
                source: ModuleSource::Library(if troubled { module_path().unwrap() } else { SoftHsm::module() }),
                isolation: Isolation::Process(environment.collect()),
                limits: if troubled { limits } else { CallLimits::default() },
            });
        }
        plan.login(LoginMode::Configured, USER_PIN, 64);
        let tokens = plan.start_tokens();
        let mut slots = ready(&tokens).await;
        // In the order of the names: the first key is the default one.
        slots.sort_by_key(|slot| names.iter().position(|name| *name == slot.token().label));
        for (slot, name) in slots.iter().zip(names) {
            plan.make_key(slot, vec![1], name, KeyKind::Ec(Curve::P256)).await;
        }
        // With two tokens a key's own name is not enough.
        plan.keys.iter_mut().for_each(|key| key.uri.token = Some(key.name.to_string()));
        tokens.stop().await;
        (plan, bench)
    }

    async fn make_key(&mut self, slot: &SlotHandle, id: Vec<u8>, label: &str, kind: KeyKind) {
        let made = slot.call(Command::GenerateKeyPair(KeyPairSpec { kind, id: id.clone(), label: label.to_owned() })).await.unwrap();
        let Reply::Key { key, .. } = made else { panic!("no key: {made:?}") };
        let issue = if label.starts_with("tsa") { DevCa::issue_for_time_stamping } else { DevCa::issue };
        let certificate = issue(&self.ca, &key.public_key.unwrap(), label, validity(1)).unwrap();
        self.serials.push(certificate.serial());
        let write = Command::WriteCertificate(CertificateOrder {
            id,
            label: label.to_owned(),
            certificate: certificate.as_der().to_vec(),
            chain: Vec::new(),
            replace: false,
        });
        slot.call(write).await.unwrap();
        self.add_key(label, None);
    }

    fn login(&mut self, login: LoginMode, pin: &str, queue_bound: usize) {
        let pin_file = self.directory.path().join("pin");
        fs::write(&pin_file, pin).unwrap();
        fs::set_permissions(&pin_file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let pin = (login == LoginMode::Configured).then_some(PinSource::File(pin_file));
        self.policies = vec![TokenPolicy { uri: "pkcs11:".parse().unwrap(), login, pin, queue_bound }];
    }

    fn add_key(&mut self, name: &str, certificate: Option<Vec<u8>>) {
        self.keys.push(ConfiguredKey {
            name: name.parse().unwrap(),
            uri: format!("pkcs11:object={name}").parse().unwrap(),
            algorithm: None,
            certificate,
            ignore_validity: false,
            ignore_purpose: false,
            chain: vec![self.ca.certificate().as_der().to_vec()],
            allow_unverified: false,
        });
        for entry in self.callers.iter_mut().filter(|entry| entry.caller.id.as_str() != "other") {
            entry.caller.default_key.get_or_insert(name.parse().unwrap());
        }
    }

    /// Evidence comes from a CRL of the plan's CA in a file, on which nothing stands.
    pub fn crl_from_file(&mut self) {
        let file = self.directory.path().join("ca.crl");
        fs::write(&file, self.ca.crl(7, validity(1), &[]).unwrap()).unwrap();
        self.evidence_from(vec![SourcePlace::CrlFile(file)]);
    }

    /// Evidence about what the plan's CA has issued comes from these places.
    pub fn evidence_from(&mut self, places: Vec<SourcePlace>) {
        let issuer = self.ca.certificate().as_der().to_vec();
        let sources = vec![RevocationSource { issuer, places }];
        self.evidence = Some(RevocationSettings { sources, timeout: PATIENCE, crl_max: 1 << 20, concurrent: 4 });
    }

    /// The declared caller of this name.
    /// Time stamps come from this authority, which is trusted.
    pub fn stamped_by(&mut self, tsa: &TestTsa) {
        self.tsa_urls = vec![tsa.url.clone()];
        let ca = Certificate::from_pem(&fs::read_to_string(tsa.lab().ca()).unwrap()).unwrap();
        self.trust = TrustStore::new([self.trust.anchors(), &[ca]].concat(), self.trust.intermediates().to_vec());
    }

    pub fn caller(&mut self, name: &str) -> &mut CallerEntry {
        self.callers.iter_mut().find(|entry| entry.caller.id.as_str() == name).unwrap()
    }

    fn start_tokens(&self) -> Tokens {
        let copy = |module: &ModuleSettings| ModuleSettings {
            options: module.options.clone(),
            source: match &module.source {
                ModuleSource::Library(path) => ModuleSource::Library(path.clone()),
                ModuleSource::Loaded(loaded) => ModuleSource::Loaded(Arc::clone(loaded)),
            },
            isolation: module.isolation.clone(),
            limits: module.limits,
        };
        let settings = TokenSettings {
            modules: self.modules.iter().map(copy).collect(),
            policies: self.policies.clone(),
            unlisted: None,
            host_program: env!("CARGO_BIN_EXE_sealgate").into(),
            marks: Some(self.directory.path().join("begun")),
        };
        Tokens::start(settings, Arc::new(StoredPinLedger::in_memory().unwrap())).unwrap()
    }

    /// Starts the gateway; where there are tokens that log in by themselves, they are ready when this returns.
    pub async fn start(self) -> Gateway {
        let tokens = self.start_tokens();
        if !self.modules.is_empty() {
            ready(&tokens).await;
        }
        let store = self.store;
        let permits = Arc::new(PermitService::new(Arc::clone(&store), self.permits));
        let signing =
            SigningService::start(tokens.clone(), self.keys.clone(), Arc::clone(&store), Arc::clone(&permits), self.signing).unwrap();
        let trust = Trust::of(self.trust);
        let tickets = TicketService::new(Arc::clone(&store), Arc::clone(&signing), Arc::clone(&permits), trust.clone(), self.tickets);
        let tickets = tickets.await.unwrap();
        let (time_stamps, door) = time_stamps(&self.tsa_urls, self.tsa_total, &self.keys, &signing, &store);
        let time_stamps = time_stamps.trusting(trust, Arc::clone(&store));
        let evidence = self.evidence.map(|settings| Arc::new(RevocationClient::new(Fetcher::new(false).unwrap(), settings)));
        let tickets = tickets.with_time_stamps(Arc::new(time_stamps));
        let tickets = Arc::new(match evidence {
            Some(evidence) => tickets.with_evidence(evidence),
            None => tickets,
        });
        let http = HttpSettings { tsa: door, ..self.http };
        let book = BookSettings {
            keys: self.keys.iter().map(|key| key.name.clone()).collect(),
            takes_certificates: self.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some()),
            permit_uses_max: 1000,
        };
        let callers = Arc::new(CallerBook::open(self.callers, book, Arc::clone(&store)).await.unwrap());
        let control_socket = self.directory.path().join("control.sock");
        let operators = Arc::new(Operators::new(Arc::clone(&store), SessionSettings::default()));
        let parts = EnrolmentParts {
            store: Arc::clone(&store),
            signing: Arc::clone(&signing),
            tokens: tokens.clone(),
            profiles: self.profiles,
            authorities: self.authorities,
            renew_days: self.renew_days,
            warnings: None,
        };
        let enrolment = Arc::new(EnrolmentService::new(parts).await.unwrap());
        let services = Services {
            callers: Arc::clone(&callers),
            tickets: Arc::clone(&tickets),
            permits: Arc::clone(&permits),
            desk: signing.desk(),
            operators: Arc::clone(&operators),
            audit: AuditDesk::new(Arc::clone(&store)),
            enrolment: Arc::clone(&enrolment),
        };
        let tls = self.tls.map(|files| Arc::new(Tls::load(files).unwrap()));
        let listeners = self.listeners.iter().map(|caller| Listener {
            socket: TcpListener::bind((self.address, 0)).unwrap(),
            caller: caller.map(|caller| caller.parse().unwrap()),
            tls: tls.clone(),
        });
        let server = Server::start(listeners.collect(), Some(UnixListener::bind(&control_socket).unwrap()), http, services).unwrap();
        Gateway {
            urls: server.urls().to_vec(),
            http: reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap(),
            directory: self.directory,
            ca: self.ca,
            keys: self.keys,
            control_socket,
            tokens,
            store,
            tickets,
            permits,
            callers,
            operators,
            enrolment,
            signing,
            server,
        }
    }
}

fn time_stamps(
    urls: &[String],
    total: Duration,
    keys: &[ConfiguredKey],
    signing: &Arc<SigningService>,
    store: &Arc<dyn Store>,
) -> (TimeStamps, TsaDoor) {
    let key = keys.iter().find(|key| key.name.as_str().starts_with("tsa"));
    let authority = key.map(|key| {
        let settings = AuthoritySettings { key: key.name.clone(), policy: "1.2.3.4.7".parse().unwrap(), accuracy_seconds: 1 };
        Arc::new(Authority::new(settings, Arc::clone(signing), Arc::clone(store)))
    });
    let source = match urls {
        [] => authority.clone().map(StampSource::Own),
        urls => Some(StampSource::Remote(TsaClient::new(Fetcher::new(false).unwrap(), tsa_settings(urls)))),
    };
    (TimeStamps::new(source, StampSettings { policy: None, total }), TsaDoor { authority, ..TsaDoor::default() })
}

/// A client of these authorities.
pub fn tsa_settings(urls: &[String]) -> TsaSettings {
    TsaSettings {
        urls: urls.iter().map(|url| url.parse().unwrap()).collect(),
        timeout: PATIENCE,
        concurrent: 4.try_into().unwrap(),
        queue: 64,
        response_max: sealgate::cms::time_stamp::RESPONSE_MAX,
    }
}

impl Gateway {
    /// Stops everything in order.
    pub async fn stop(self) {
        self.server.stop().await;
        self.signing.stop().await;
        self.tokens.stop().await;
    }

    /// A request of the caller `ci` to a path below `/api/v1`.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.anonymous(method, &format!("/api/v1{path}")).bearer_auth(CI_KEY)
    }

    /// A request without credentials to any path.
    pub fn anonymous(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.urls[0]))
    }

    pub async fn get(&self, path: &str) -> Answer {
        send(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str) -> Answer {
        send(self.request(Method::POST, path)).await
    }

    pub async fn post_json(&self, path: &str, body: Value) -> Answer {
        send(self.request(Method::POST, path).json(&body)).await
    }

    pub async fn put_json(&self, path: &str, body: Value) -> Answer {
        send(self.request(Method::PUT, path).json(&body)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        send(self.request(Method::DELETE, path)).await
    }

    /// Makes a ticket and gives back its path.
    pub async fn ticket(&self) -> String {
        let answer = self.post("/ticket").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        format!("/ticket/{}", answer.json()["ticketUuid"].as_str().unwrap())
    }

    /// Makes a ticket with this content.
    pub async fn ticket_with(&self, content: &[u8]) -> String {
        let ticket = self.ticket().await;
        let answer = self.upload(&ticket, "application/octet-stream", content.to_vec()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        ticket
    }

    /// Asks for a ticket's signature and fetches it at once, as most clients do.
    pub async fn sign(&self, ticket: &str) -> Vec<u8> {
        let started = self.post(&format!("{ticket}/ds/creator")).await;
        assert_eq!(started.status, 200, "{}", started.text());
        let fetched = self.get(&format!("{ticket}/ds/data")).await;
        assert_eq!(fetched.status, 200, "{}", fetched.text());
        fetched.body
    }

    pub async fn upload(&self, ticket: &str, content_type: &str, body: Vec<u8>) -> Answer {
        send(self.request(Method::POST, &format!("{ticket}/data")).header("content-type", content_type).body(body)).await
    }
}

/// Sends a request and checks what is true of every answer of the ticket API.
pub async fn send(request: RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let answer = Answer { status, headers, body: response.bytes().await.unwrap().to_vec() };
    answer.check();
    answer
}

impl Answer {
    pub fn text(&self) -> String {
        format!("{} {}", self.status, String::from_utf8_lossy(&self.body))
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_else(|| panic!("no message: {}", self.text())).to_owned()
    }

    pub fn cause(&self) -> String {
        self.json()["failureCause"].as_str().unwrap_or_else(|| panic!("no cause: {}", self.text())).to_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    fn check(&self) {
        if self.status == 204 || self.header("content-type") == Some("application/octet-stream") {
            return;
        }
        assert_eq!(self.header("content-type"), Some("application/json"), "{}", self.text());
        let json = self.json();
        let without_message = json.is_array() || json == serde_json::json!({});
        assert!(without_message || !self.message().is_empty(), "{}", self.text());
        let cause = json.get("failureCause").map(|cause| cause.as_str().unwrap_or_default().to_owned());
        assert_eq!(cause.is_some_and(|cause| !cause.is_empty()), self.status == 500, "{}", self.text());
    }
}

/// Valid from now on, for a day less a number of hours.
fn validity(hours_less: u64) -> Validity {
    let now = Timestamp::from(SystemTime::now());
    Validity::new(now, now.after(Duration::from_secs((10 * 365 * 24 - hours_less) * 3600))).unwrap()
}

fn entry(name: &str, key: Option<&str>, origins: &[&str]) -> CallerEntry {
    let caller = Caller {
        id: name.parse().unwrap(),
        keys: KeyAccess::All,
        default_key: None,
        consent: ConsentPolicy::Auto.into(),
        permit_uses_max: 1000,
        scopes: Scopes::default(),
        account: None,
        rate: None,
        from: Provenance::default(),
    };
    let origins = origins.iter().map(|origin| origin.parse().unwrap()).collect();
    CallerEntry { caller, api_keys: key.map(|key| vec![ApiKeyHash::of(key).into()]), certificate: None, origins }
}

/// Every token's slot, when it has come to rest.
async fn ready(tokens: &Tokens) -> Vec<SlotHandle> {
    tokens.settled(PATIENCE).await;
    let slots = tokens.slots();
    assert!(!slots.is_empty(), "no token; {:?}", tokens.problems());
    for slot in &slots {
        let mut status = slot.watch();
        let at_rest = |state| match slot.login_mode() {
            LoginMode::Configured => state == SlotState::Ready,
            LoginMode::PerRequest => state == SlotState::Present,
            LoginMode::Operator | LoginMode::Protected => state == SlotState::NeedsPin,
        };
        let waited = tokio::time::timeout(PATIENCE, status.wait_for(|status| at_rest(status.state))).await.map(|seen| seen.is_ok());
        assert_eq!(waited, Ok(true), "the slot is still {:?}", slot.status());
    }
    slots
}

/// A PIN.
pub fn pin(text: &str) -> Pin {
    Pin::new(text.to_owned()).unwrap()
}
