//! Opens the inbox of the console in a browser: for the person whose own desktop holds the token.

use std::{
    env,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use tracing::{info, warn};

/// For so long after a page was opened no other one is.
const QUIET: Duration = Duration::from_secs(60);

/// What opens pages, and when it did last.
pub(super) struct Browser {
    page: String,
    opened: Option<Instant>,
    waiting: usize,
}

impl Browser {
    /// Opens this page.
    pub(super) const fn new(page: String) -> Self {
        Self { page, opened: None, waiting: 0 }
    }

    /// Takes note of how many requests wait now, and opens the page if there is something new that nobody has a page for.
    pub(super) fn note(&mut self, waiting: usize, now: Instant) {
        if self.shall_open(waiting, now) {
            self.open();
        }
    }

    /// Requests that come while others wait find the page that was opened for those.
    fn shall_open(&mut self, waiting: usize, now: Instant) -> bool {
        let before = std::mem::replace(&mut self.waiting, waiting);
        let quiet = self.opened.is_some_and(|opened| now.saturating_duration_since(opened) < QUIET);
        let open = waiting > 0 && before == 0 && !quiet;
        if open {
            self.opened = Some(now);
        }
        open
    }

    fn open(&self) {
        let program = env::var("BROWSER").ok().filter(|program| !program.is_empty());
        let program = program.unwrap_or_else(|| if cfg!(target_os = "macos") { "open" } else { "xdg-open" }.to_owned());
        let started = Command::new(&program).arg(&self.page).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        match started {
            // It ends when it likes; somebody has to take note of that.
            Ok(mut child) => drop(std::thread::spawn(move || child.wait())),
            Err(error) => {
                warn!(error = %error, "{program} does not start; name a browser in BROWSER, or open {}", self.page);
                return;
            }
        }
        info!("something waits for an operator: opened {}", self.page);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twenty_requests_open_one_page() {
        let (mut browser, start) = (Browser::new("http://localhost/".to_owned()), Instant::now());
        assert_eq!((0..20).filter(|n| browser.shall_open(n + 1, start)).count(), 1);
        // What was decided and asked for again within a minute finds the page still there.
        assert!(!browser.shall_open(0, start) && !browser.shall_open(1, start + Duration::from_secs(1)));
        assert!(!browser.shall_open(0, start) && browser.shall_open(1, start + QUIET));
    }
}
