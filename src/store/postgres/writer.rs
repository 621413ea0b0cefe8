//! The one task that writes: takes what waits, makes it one transaction, and answers when the database has it for good.
//!
//! Invariants: a change is answered once, and rightly: one that was not taken up in time, or whose transaction certainly was not committed, is
//! refused; if the answer to a COMMIT is lost, nothing is repeated or answered until the database has said what became of it. What one
//! change meets does not concern the others of its group. The group is what has gathered while the one before it was written.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, sleep, timeout_at},
};
use tracing::{error, info, warn};
use uuid::Uuid;

use super::{
    Shared,
    claim::Served,
    group::{Group, Made, Work},
    session::{Fault, Session, application_name},
};
use crate::{
    domain::{audit::AuditHead, ids::TicketId, timestamp::Timestamp},
    store::{StoreError, meter::CommitMeter},
};

/// The most changes that wait. A change that finds no room in time is refused, and its client asked to come again.
const QUEUE_MAX: usize = 4_096;

/// The most changes that share a transaction.
const GROUP_MAX: usize = 256;

/// The most content that shares a transaction, in bytes.
const GROUP_BYTES: usize = 16 << 20;

/// How long the times at which tickets were used may wait to be written.
const TOUCH_EVERY: Duration = Duration::from_secs(1);

/// The pause before the database is tried again; it doubles up to the second one.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// How operators see the connection in `pg_stat_activity`.
const ROLE: &str = "writer";

/// Ends connections of this gateway that were left behind, with whatever they were about to do, and waits until they are gone.
const END_LEFTOVERS: &str = "SELECT pg_terminate_backend(pid, 3000) FROM pg_stat_activity \
    WHERE application_name = $1 AND usename = current_user AND datname = current_database() AND pid <> pg_backend_pid()";

/// Whatever the old connection still does holds this row; so the answer is final.
const WHAT_BECAME: &str = "SELECT batch FROM gateways WHERE id = $1 FOR UPDATE";

/// A change that waits, and who waits for it.
struct Order {
    work: Work,
    reply: oneshot::Sender<Result<Made, StoreError>>,
    /// Set by whoever is first: the writer, who takes it up, or its sender, who has waited for too long.
    taken: Arc<AtomicBool>,
    deadline: Instant,
}

/// The way to the writing task.
#[derive(Clone)]
pub(super) struct Writer {
    orders: mpsc::Sender<Order>,
    wait: Duration,
}

impl Writer {
    /// Starts the task; it ends, and writes what it has, when the last [`Writer`] is dropped.
    pub(super) fn start(shared: Arc<Shared>) -> (Self, JoinHandle<()>) {
        let (orders, queue) = mpsc::channel(QUEUE_MAX);
        let wait = shared.settings.wait;
        let task = tokio::spawn(Desk::new(shared).work(queue));
        (Self { orders, wait }, task)
    }

    /// Has `work` done in the next transaction.
    pub(super) async fn write(&self, work: Work) -> Result<Made, StoreError> {
        let deadline = Instant::now() + self.wait;
        let (reply, mut answer) = oneshot::channel();
        let taken = Arc::new(AtomicBool::new(false));
        let order = Order { work, reply, taken: Arc::clone(&taken), deadline };
        let full = |_| StoreError::Unavailable("too many changes wait for the database".to_owned());
        timeout_at(deadline, self.orders.send(order)).await.map_err(full)?.map_err(|_| ended())?;
        if let Ok(answer) = timeout_at(deadline, &mut answer).await {
            return answer.map_err(|_| ended())?;
        }
        if taken.swap(true, Ordering::AcqRel) {
            // It may have been committed already: only the writer knows.
            answer.await.map_err(|_| ended())?
        } else {
            Err(StoreError::Unavailable(format!("the database did not take the change up within {} s", self.wait.as_secs())))
        }
    }
}

fn ended() -> StoreError {
    StoreError::Unavailable("the change was not made: the store is closed, or failed".to_owned())
}

/// Why a group was not written.
enum Failure {
    /// Certainly nothing of it was.
    Nothing(Fault),
    /// The answer to its COMMIT was lost; these are the answers if it was committed.
    Unknown(Fault, Box<Group>),
}

struct Desk {
    shared: Arc<Shared>,
    session: Option<Session>,
    head: Option<AuditHead>,
    served: Served,
    away: bool,
    meter: CommitMeter,
}

impl Desk {
    fn new(shared: Arc<Shared>) -> Self {
        Self { shared, session: None, head: None, served: Served::new(), away: false, meter: CommitMeter::of("postgres") }
    }

    async fn work(mut self, mut queue: mpsc::Receiver<Order>) {
        loop {
            let first = tokio::select! {
                order = queue.recv() => match order {
                    Some(order) => Some(order),
                    None => break,
                },
                () = sleep(TOUCH_EVERY) => None,
            };
            let mut orders = Vec::new();
            let mut bytes = 0;
            let mut next = first;
            while let Some(order) = next.take() {
                bytes += order.work.content_bytes();
                // Who has gone, or has given up, wants nothing any more.
                if !order.reply.is_closed() && !order.taken.swap(true, Ordering::AcqRel) {
                    orders.push(order);
                }
                if orders.len() < GROUP_MAX && bytes < GROUP_BYTES {
                    next = queue.try_recv().ok();
                }
            }
            self.write_or_go_on(orders).await;
        }
        self.write_or_go_on(Vec::new()).await;
    }

    /// Writes the orders. A panic is a bug in one of them or in this task, and is not to end the task: who waited is refused, and what was written
    /// ends with its connection.
    async fn write_or_go_on(&mut self, orders: Vec<Order>) {
        if AssertUnwindSafe(self.write(orders)).catch_unwind().await.is_err() {
            error!("the store's writer failed while it wrote; what it was writing is refused. Report this as a bug");
            (self.session, self.head, self.served) = (None, None, Served::new());
        }
    }

    /// Writes the orders, and the times at which tickets were used.
    async fn write(&mut self, orders: Vec<Order>) {
        let touched = self.shared.take_touched();
        if orders.is_empty() && touched.is_empty() {
            return;
        }
        if !self.write_group(orders, &touched).await {
            self.shared.put_touched_back(touched);
        }
    }

    /// Tries until the group is written or nobody waits for it any more; returns whether it was written.
    async fn write_group(&mut self, mut orders: Vec<Order>, touched: &HashMap<TicketId, Timestamp>) -> bool {
        let mut pause = PAUSE.0;
        loop {
            let started = Instant::now();
            let fault = match self.attempt(&orders, touched).await {
                Ok(group) => {
                    self.settle(group, orders, started);
                    return true;
                }
                Err(Failure::Unknown(fault, group)) => {
                    warn!(error = %fault, "the answer to a commit was lost; asking what became of it");
                    if self.was_committed(group.id).await {
                        self.settle(*group, orders, started);
                        return true;
                    }
                    fault
                }
                Err(Failure::Nothing(fault)) => fault,
            };
            // What was noted of the transaction is not so: read it again.
            self.head = None;
            if let Fault::Refused(_) = fault {
                if orders.len() > 1 {
                    // One of them may be to blame, and must not spoil the others.
                    for order in orders {
                        Box::pin(self.write_group(vec![order], &HashMap::new())).await;
                    }
                    return false;
                }
                warn!(error = %fault, "the database refused a change: {fault}");
                refuse(orders.drain(..), &fault);
            } else if !self.away && matches!(fault, Fault::Away(_)) {
                self.away = true;
                warn!(error = %fault, "the database is away: {fault}");
            }
            let (late, waiting): (Vec<_>, Vec<_>) = orders.into_iter().partition(|order| order.deadline <= Instant::now());
            refuse(late, &fault);
            orders = waiting;
            if orders.is_empty() {
                return false;
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    /// One transaction, from beginning to end.
    async fn attempt(&mut self, orders: &[Order], touched: &HashMap<TicketId, Timestamp>) -> Result<Group, Failure> {
        self.connect().await.map_err(Failure::Nothing)?;
        // INVARIANT: `connect` has just made it.
        let Some(session) = self.session.as_ref() else { return Err(Failure::Nothing(Fault::Away("no connection".to_owned()))) };
        let works: Vec<_> = orders.iter().map(|order| &order.work).collect();
        let written = Group::write(&self.shared, session, &works, touched, self.head, &self.served).await;
        let group = match written {
            Ok(group) => group,
            Err(fault) => {
                let gone = session.is_closed() || session.batch("ROLLBACK").await.is_err();
                if gone {
                    self.session = None;
                }
                return Err(Failure::Nothing(fault));
            }
        };
        if !group.changes_anything {
            return match session.batch("ROLLBACK").await {
                Ok(()) => Ok(group),
                Err(fault) => {
                    self.session = None;
                    Err(Failure::Nothing(fault))
                }
            };
        }
        match session.batch("COMMIT").await {
            Ok(()) => Ok(group),
            Err(fault) => {
                self.session = None;
                Err(Failure::Unknown(fault, Box::new(group)))
            }
        }
    }

    async fn connect(&mut self) -> Result<(), Fault> {
        if self.session.as_ref().is_some_and(|session| !session.is_closed()) {
            return Ok(());
        }
        self.session = None;
        self.head = None;
        let session = Session::open(&self.shared.settings, ROLE).await?;
        session.query(END_LEFTOVERS, &[&application_name(&self.shared.settings, ROLE)]).await?;
        self.session = Some(session);
        if std::mem::take(&mut self.away) {
            info!("the database is back");
        }
        Ok(())
    }

    /// Asks until the database says whether the group with this id was committed: neither "done" nor "not done" may be guessed.
    async fn was_committed(&mut self, group: Uuid) -> bool {
        let mut pause = PAUSE.0;
        loop {
            let asked = async {
                self.connect().await?;
                let Some(session) = self.session.as_ref() else { return Err(Fault::Away("no connection".to_owned())) };
                session.query(WHAT_BECAME, &[&self.shared.settings.gateway.as_uuid()]).await
            };
            match asked.await {
                Ok(rows) => {
                    let last: Option<Uuid> = rows.first().and_then(|row| row.get(0));
                    let committed = last == Some(group);
                    info!("the commit whose answer was lost was {}", if committed { "made" } else { "not made" });
                    return committed;
                }
                Err(fault) => {
                    warn!(error = %fault, "what became of a commit is not known yet: {fault}");
                    self.session = None;
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    /// Notes and tells what was committed.
    fn settle(&mut self, group: Group, orders: Vec<Order>, started: Instant) {
        if group.changes_anything {
            self.meter.committed(orders.len(), started.elapsed());
        }
        self.head = Some(group.head);
        self.served = group.served;
        for (order, made) in orders.into_iter().zip(group.made) {
            // Whoever has gone needs no answer.
            let _ = order.reply.send(made);
        }
        self.shared.waiters.wake(&group.moved);
    }
}

fn refuse(orders: impl IntoIterator<Item = Order>, fault: &Fault) {
    for order in orders {
        let _ = order.reply.send(Err(StoreError::Unavailable(fault.to_string())));
    }
}
