//! Every signature is verified in software before it leaves, on threads of its own: never on a slot thread or an event loop.
//!
//! Callers wait without blocking their event loop: for a place in the queue, then for the answer. Bounds: the queue, and with
//! [`PENDING_MAX`] the callers that wait. Stopping answers what is queued, refuses what waits for a place, and joins the threads.

use std::{
    io,
    num::NonZeroUsize,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Instant,
};

use crossbeam_channel::{Receiver, Sender};
use metrics::Histogram;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    task,
};

use crate::{
    domain::{
        digest::ToSign,
        signature::SignatureValue,
        verify::{Verifier, VerifyError},
    },
    telemetry::metrics::VERIFY_SECONDS,
};

/// The most verifications that are asked for and not answered at one time; far above what all slots together can have claimed.
pub const PENDING_MAX: usize = 4096;

/// Why a verification has no answer, or a bad one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// The signature must not leave.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// [`PENDING_MAX`] verifications are pending. Nothing is known about the signature.
    #[error("too many signatures wait to be verified")]
    Busy,
    /// The pool has stopped. Nothing is known about the signature.
    #[error("the verification threads have stopped")]
    Stopped,
    /// The verification itself failed. Nothing is known about the signature.
    #[error("the verification did not end")]
    Lost,
}

/// A few threads that verify signatures, and their queue.
///
/// Dropping it without [`stop`](Self::stop) lets the threads end by themselves when the queue is empty.
#[derive(Debug)]
pub struct VerifyPool {
    /// One permit for each verification that may be pending.
    pending: Semaphore,
    /// One permit for each place in the queue, so that sending never blocks.
    places: Arc<Semaphore>,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    jobs: Sender<Job>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Job {
    verifier: Arc<Verifier>,
    to_sign: ToSign,
    value: SignatureValue,
    reply: oneshot::Sender<Result<SignatureValue, VerifyError>>,
    place: OwnedSemaphorePermit,
}

impl VerifyPool {
    /// Starts `threads` threads, named `verify-0` and so on, with a common queue of `queue` verifications.
    ///
    /// # Errors
    /// What the system says if it starts no thread; those that were started end.
    pub fn start(threads: NonZeroUsize, queue: NonZeroUsize) -> io::Result<Self> {
        let (jobs, queued) = crossbeam_channel::bounded(queue.get());
        let seconds = VERIFY_SECONDS.histogram(&[]);
        let threads = (0..threads.get())
            .map(|number| {
                let (queued, seconds) = (queued.clone(), seconds.clone());
                thread::Builder::new().name(format!("verify-{number}")).spawn(move || work(&queued, &seconds))
            })
            .collect::<io::Result<Vec<_>>>()?;
        Ok(Self {
            pending: Semaphore::new(PENDING_MAX),
            places: Arc::new(Semaphore::new(queue.get())),
            running: Mutex::new(Some(Running { jobs, threads })),
        })
    }

    /// Verifies `value` on one of the threads and gives it back if it is right.
    ///
    /// Waits for a place in the queue and for the answer. If the caller stops waiting, a verification that is queued is skipped.
    ///
    /// # Errors
    /// [`PoolError::Verify`] if the signature must not leave; after the others nothing is known about it.
    pub async fn verify(&self, verifier: Arc<Verifier>, to_sign: ToSign, value: SignatureValue) -> Result<SignatureValue, PoolError> {
        let _pending = self.pending.try_acquire().map_err(|_| PoolError::Busy)?;
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| PoolError::Stopped)?;
        let (reply, answer) = oneshot::channel();
        self.enqueue(Job { verifier, to_sign, value, reply, place })?;
        Ok(answer.await.map_err(|_| PoolError::Lost)??)
    }

    /// Stops taking verifications, answers those that are queued, and waits for the threads to end. A second call does nothing.
    pub async fn stop(&self) {
        self.places.close();
        let Some(Running { jobs, threads }) = self.running.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        drop(jobs);
        let joined = task::spawn_blocking(|| threads.into_iter().for_each(|thread| drop(thread.join())));
        // It fails only if the runtime itself is going down, and the threads end all the same.
        let _ = joined.await;
    }

    fn enqueue(&self, job: Job) -> Result<(), PoolError> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let jobs = running.as_ref().map(|running| &running.jobs).ok_or(PoolError::Stopped)?;
        // Never full: the job holds one of as many places as the queue has.
        jobs.try_send(job).map_err(|_| PoolError::Stopped)
    }
}

/// What a thread does until the pool stops and the queue is empty.
fn work(queued: &Receiver<Job>, seconds: &Histogram) {
    for Job { verifier, to_sign, value, reply, place } in queued {
        drop(place);
        if reply.is_closed() {
            continue;
        }
        let began = Instant::now();
        // A panic must not cost a thread; the caller learns of it because the reply is dropped.
        let verified = panic::catch_unwind(AssertUnwindSafe(|| verifier.verify(&to_sign, &value)));
        seconds.record(began.elapsed().as_secs_f64());
        if let Ok(verified) = verified {
            // The caller may have gone meanwhile.
            let _ = reply.send(verified.map(|()| value));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, future::join_all};

    use super::*;
    use crate::domain::verify::tests::{ed25519, ed25519_signature};

    fn count(number: usize) -> NonZeroUsize {
        NonZeroUsize::new(number).unwrap()
    }

    fn pool(threads: usize, queue: usize) -> VerifyPool {
        VerifyPool::start(count(threads), count(queue)).unwrap()
    }

    /// A pool whose threads never come to it: what is queued stays queued until [`Receiver`] is used.
    fn pool_without_threads(queue: usize) -> (VerifyPool, Receiver<Job>) {
        let (jobs, queued) = crossbeam_channel::bounded(queue);
        let pool = VerifyPool {
            pending: Semaphore::new(PENDING_MAX),
            places: Arc::new(Semaphore::new(queue)),
            running: Mutex::new(Some(Running { jobs, threads: Vec::new() })),
        };
        (pool, queued)
    }

    #[tokio::test]
    async fn a_right_signature_comes_back_and_a_wrong_one_does_not() {
        let pool = pool(2, 4);
        let (verifier, to_sign, value) = ed25519_signature(b"message");
        let (_, other, _) = ed25519_signature(b"other message");
        assert_eq!(pool.verify(Arc::clone(&verifier), to_sign, value.clone()).await.unwrap(), value);
        let wrong = pool.verify(verifier, other, value).await;
        assert!(matches!(wrong, Err(PoolError::Verify(VerifyError::Wrong))));
    }

    #[tokio::test]
    async fn many_more_than_the_queue_holds_are_all_answered() {
        let pool = pool(2, 3);
        let key = ed25519();
        let all = (0..200u32).map(|number| {
            let (verifier, to_sign, value) = key.signature(&number.to_be_bytes());
            pool.verify(verifier, to_sign, value)
        });
        assert!(join_all(all).await.iter().all(Result::is_ok));
    }

    #[tokio::test]
    async fn a_full_queue_makes_callers_wait_without_blocking_them() {
        let (pool, queued) = pool_without_threads(1);
        let (verifier, to_sign, value) = ed25519_signature(b"message");
        let ask = || Box::pin(pool.verify(Arc::clone(&verifier), to_sign.clone(), value.clone()));
        let (mut first, mut second) = (ask(), ask());
        assert!(first.as_mut().now_or_never().is_none());
        assert!(second.as_mut().now_or_never().is_none());
        assert_eq!(queued.len(), 1);
        // A thread takes the first: its place is free and the second moves up.
        let job = queued.recv().unwrap();
        drop(job.place);
        assert!(second.as_mut().now_or_never().is_none());
        assert_eq!(queued.len(), 1);
    }

    #[tokio::test]
    async fn there_is_a_bound_to_those_who_wait() {
        let (pool, _queued) = pool_without_threads(1);
        let all_taken = pool.pending.try_acquire_many(u32::try_from(PENDING_MAX).unwrap()).unwrap();
        let (verifier, to_sign, value) = ed25519_signature(b"message");
        let ask = || pool.verify(Arc::clone(&verifier), to_sign.clone(), value.clone());
        assert!(matches!(ask().now_or_never(), Some(Err(PoolError::Busy))));
        drop(all_taken);
        assert!(ask().now_or_never().is_none());
    }

    #[tokio::test]
    async fn stopping_answers_what_is_queued_and_refuses_what_comes_later() {
        let (pool, queued) = pool_without_threads(1);
        let (verifier, to_sign, value) = ed25519_signature(b"message");
        let ask = || Box::pin(pool.verify(Arc::clone(&verifier), to_sign.clone(), value.clone()));
        let (mut in_queue, mut waiting) = (ask(), ask());
        assert!(in_queue.as_mut().now_or_never().is_none());
        assert!(waiting.as_mut().now_or_never().is_none());
        pool.stop().await;
        // The threads of a real pool are joined by `stop`; here the work is done by hand, and ends because the pool has stopped.
        work(&queued, &Histogram::noop());
        assert!(in_queue.await.is_ok());
        assert!(matches!(waiting.await, Err(PoolError::Stopped)));
        assert!(matches!(ask().await, Err(PoolError::Stopped)));
        pool.stop().await;
    }

    #[tokio::test]
    async fn stopping_joins_the_threads() {
        let pool = pool(3, 1);
        let (verifier, to_sign, value) = ed25519_signature(b"message");
        let kept = Arc::downgrade(&verifier);
        pool.verify(verifier, to_sign, value).await.unwrap();
        pool.stop().await;
        // The thread that verified has ended, and nothing is left of its job.
        assert!(kept.upgrade().is_none());
        assert!(pool.running.lock().unwrap().is_none());
    }

    #[tokio::test]
    async fn a_verification_that_does_not_end_is_not_taken_for_a_good_one() {
        let (pool, queued) = pool_without_threads(1);
        let (verifier, to_sign, value) = ed25519_signature(b"message");
        let mut asked = Box::pin(pool.verify(verifier, to_sign, value));
        assert!(asked.as_mut().now_or_never().is_none());
        drop(queued.recv());
        assert!(matches!(asked.await, Err(PoolError::Lost)));
    }

    #[tokio::test]
    async fn a_caller_that_has_gone_costs_no_verification() {
        let (pool, queued) = pool_without_threads(1);
        let (verifier, to_sign, value) = ed25519_signature(b"message");
        let mut gone = Box::pin(pool.verify(verifier, to_sign, value));
        assert!(gone.as_mut().now_or_never().is_none());
        drop(gone);
        assert!(queued.recv().unwrap().reply.is_closed());
        assert_eq!(pool.pending.available_permits(), PENDING_MAX);
        assert_eq!(pool.places.available_permits(), 1);
    }
}
