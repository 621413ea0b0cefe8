//! Listening, serving, and stopping in order.
//!
//! Invariants: listeners for callers serve callers' routes only, the control socket operators' only, the one for Prometheus its only; when [`Server::stop`]
//! returns, no request is being served any more.

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, TcpListener},
    os::unix::net::UnixListener,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use actix_web::{
    App, HttpServer,
    dev::{self, ServerHandle},
    middleware::from_fn,
    web::{self, ServiceConfig},
};
use futures_util::future::join_all;
use tokio::{sync::watch, task::JoinSet};
use tracing::error;

use super::{
    app::{self, AppState, HttpSettings, Services},
    control::{self, LocalUser},
    tls,
    tracking::{Surface, Tracker},
};
use crate::domain::ids::CallerId;

/// How long an idle connection is kept: longer than clients' pauses between two polls, or they would meet connections that just close.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// How long a client may take to send the head of a request.
const REQUEST_HEAD_MAX: Duration = Duration::from_secs(10);
/// How long a TLS handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// The most TLS handshakes that are under way on one event loop; clients that never finish theirs must not keep the others out.
const HANDSHAKES_MAX: usize = 4096;
/// How long a client that was answered in the middle of its upload may go on sending, so that it comes to read the answer.
const LINGER_MAX: Duration = Duration::from_secs(5);

/// A socket that callers come in at.
#[derive(Debug)]
pub struct Listener {
    /// The socket, listening.
    pub socket: TcpListener,
    /// Who a request without credentials is taken for.
    pub caller: Option<CallerId>,
    /// What it speaks TLS with; `None` for plain HTTP.
    pub tls: Option<Arc<tls::Tls>>,
}

/// A server that runs.
pub struct Server {
    addresses: Vec<SocketAddr>,
    urls: Vec<String>,
    handles: Vec<ServerHandle>,
    tasks: JoinSet<io::Result<()>>,
    closing: watch::Sender<bool>,
    state: web::Data<AppState>,
}

impl Server {
    /// Starts to serve callers on `listeners` and operators on the `control` socket, which must be private to the gateway's user already.
    /// Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// A socket cannot be used, or a listener is bound to a caller that is not declared.
    pub fn start(listeners: Vec<Listener>, control: Option<UnixListener>, settings: HttpSettings, services: Services) -> io::Result<Self> {
        let (addresses, listener_callers) = addresses(&listeners, &services)?;
        let urls = listeners.iter().zip(&addresses).map(|(listener, address)| url(listener, *address)).collect();
        let (closing, closed) = watch::channel(false);
        let (workers, grace) = (settings.workers, settings.shutdown_grace);
        let (desk, callers) = (web::Data::new(services.desk.clone()), web::Data::from(Arc::clone(&services.callers)));
        let operators = web::Data::from(Arc::clone(&services.operators));
        let enrolment = web::Data::from(Arc::clone(&services.enrolment));
        let permits = web::Data::from(Arc::clone(&services.permits));
        let state = web::Data::new(AppState::new(services, settings, listener_callers, closed.clone()));
        let mut server = Self { addresses, urls, handles: Vec::new(), tasks: JoinSet::new(), closing, state: state.clone() };
        if let Some(socket) = control {
            let closed = web::Data::new(closed);
            let routes = move |config: &mut ServiceConfig| {
                control::configure(desk.clone(), callers.clone(), operators.clone(), enrolment.clone(), permits.clone(), closed.clone())(
                    config,
                );
            };
            server.run(serve(routes, Surface::Operators, Sockets::Control(socket), 1, grace)?);
        }
        let routes = move |config: &mut ServiceConfig| app::configure(state.clone())(config);
        let sockets = listeners.into_iter().map(|listener| (listener.socket, listener.tls)).collect();
        server.run(serve(routes, Surface::Callers, Sockets::Tcp(sockets), workers, grace)?);
        Ok(server)
    }

    /// Serves the numbers for Prometheus on a socket of their own, too.
    ///
    /// # Errors
    /// The socket cannot be used.
    pub fn serve_metrics(&mut self, socket: TcpListener) -> io::Result<()> {
        let (state, grace) = (self.state.clone(), self.state.settings.shutdown_grace);
        let routes = move |config: &mut ServiceConfig| app::configure_metrics(state.clone())(config);
        self.run(serve(routes, Surface::Scrapers, Sockets::Tcp(vec![(socket, None)]), 1, grace)?);
        Ok(())
    }

    /// The addresses that callers are served on, in the order of the listeners, with their real ports.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The same as URLs.
    #[must_use]
    pub fn urls(&self) -> &[String] {
        &self.urls
    }

    /// How many requests of `caller` are held open now, because they wait for something.
    #[must_use]
    pub fn held_open(&self, caller: &CallerId) -> usize {
        self.state.limits.held_open(caller)
    }

    /// Stops: takes no more requests, ends those that only wait, finishes the others within the configured grace, and closes.
    pub async fn stop(mut self) {
        self.closing.send_replace(true);
        join_all(self.handles.iter().map(|handle| handle.stop(true))).await;
        while let Some(ended) = self.tasks.join_next().await {
            match ended {
                Ok(Ok(())) => {}
                Ok(Err(error)) => error!(error = %error, "the HTTP server did not end well"),
                Err(error) => error!(error = %error, "the HTTP server failed"),
            }
        }
    }

    fn run(&mut self, server: dev::Server) {
        self.handles.push(server.handle());
        self.tasks.spawn(server);
    }
}

fn url(listener: &Listener, address: SocketAddr) -> String {
    let scheme = if listener.tls.is_some() { "https" } else { "http" };
    format!("{scheme}://{address}")
}

/// Where the listeners listen, and which of them stand for a caller.
fn addresses(listeners: &[Listener], services: &Services) -> io::Result<(Vec<SocketAddr>, HashMap<SocketAddr, CallerId>)> {
    let (mut addresses, mut callers) = (Vec::new(), HashMap::new());
    for Listener { socket, caller, .. } in listeners {
        let address = socket.local_addr()?;
        addresses.push(address);
        match caller {
            Some(caller) if !services.callers.contains(caller) => {
                let message = format!("the listener on {address} is bound to caller {caller}, which is not declared");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
            }
            Some(caller) => drop(callers.insert(address, caller.clone())),
            None => {}
        }
    }
    Ok((addresses, callers))
}

enum Sockets {
    Tcp(Vec<(TcpListener, Option<Arc<tls::Tls>>)>),
    Control(UnixListener),
}

fn serve(
    routes: impl Fn(&mut ServiceConfig) + Clone + Send + 'static,
    surface: Surface,
    sockets: Sockets,
    workers: usize,
    grace: Duration,
) -> io::Result<dev::Server> {
    let app = move || {
        let tracker = Rc::new(Tracker::new(surface));
        let track = move |request, next| {
            let tracker = Rc::clone(&tracker);
            async move { tracker.track(request, next).await }
        };
        App::new().wrap(from_fn(track)).configure(&routes)
    };
    let server = HttpServer::new(app)
        .workers(workers)
        .keep_alive(KEEP_ALIVE)
        .client_request_timeout(REQUEST_HEAD_MAX)
        .tls_handshake_timeout(HANDSHAKE_MAX)
        .max_connection_rate(HANDSHAKES_MAX)
        .on_connect(|connection, extensions| {
            if let Some(certificate) = tls::client_certificate(connection) {
                extensions.insert(certificate);
            }
            if let Some(user) = LocalUser::of(connection) {
                extensions.insert(user);
            }
        })
        .client_disconnect_timeout(LINGER_MAX)
        // A client that hangs up is gone: nobody goes on waiting for its signature.
        .h1_allow_half_closed(false)
        .shutdown_timeout(grace.as_secs())
        .disable_signals();
    let server = match sockets {
        Sockets::Tcp(sockets) => sockets.into_iter().try_fold(server, |server, (socket, tls)| match tls {
            Some(tls) => server.listen_rustls_0_23(socket, tls.config()),
            None => server.listen(socket),
        })?,
        Sockets::Control(socket) => server.listen_uds(socket)?,
    };
    Ok(server.run())
}
