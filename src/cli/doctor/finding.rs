//! What doctor finds: how bad it is, what it is, why it matters, and what mends it.

use serde::Serialize;

use crate::cli::output;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// As it should be.
    Ok,
    /// Signatures are made; something should be looked at, or could not be looked at.
    Warning,
    /// Something is not signed, or not safe.
    Fault,
}

/// What mends a finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Fix {
    /// A shell command that can be run as it is printed.
    Command(String),
    /// What only a person can do.
    ByHand(String),
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// How bad it is.
    pub(super) severity: Severity,
    /// What was looked at: a fixed word for programs.
    pub(super) check: &'static str,
    /// What was found.
    pub(super) what: String,
    /// Why it matters; empty where all is well.
    pub(super) why: &'static str,
    /// What mends it.
    pub(super) fix: Option<Fix>,
}

/// Everything that was found, in the order in which it was looked at.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<Finding>);

/// The findings as programs read them.
#[derive(Serialize)]
struct Report<'a> {
    findings: &'a [Finding],
    warnings: usize,
    faults: usize,
}

impl Fix {
    /// A command.
    pub(super) fn command(command: impl Into<String>) -> Self {
        Self::Command(command.into())
    }

    /// A sentence.
    pub(super) fn by_hand(sentence: impl Into<String>) -> Self {
        Self::ByHand(sentence.into())
    }
}

impl Findings {
    /// Notes that something is well.
    pub(super) fn ok(&mut self, check: &'static str, what: impl Into<String>) {
        self.0.push(Finding { severity: Severity::Ok, check, what: what.into(), why: "", fix: None });
    }

    /// Notes what should be looked at.
    pub(super) fn warning(&mut self, check: &'static str, what: impl Into<String>, why: &'static str, fix: Fix) {
        self.0.push(Finding { severity: Severity::Warning, check, what: what.into(), why, fix: Some(fix) });
    }

    /// Notes what is wrong.
    pub(super) fn fault(&mut self, check: &'static str, what: impl Into<String>, why: &'static str, fix: Fix) {
        self.0.push(Finding { severity: Severity::Fault, check, what: what.into(), why, fix: Some(fix) });
    }

    /// How many findings are as bad as this.
    pub(super) fn count(&self, severity: Severity) -> usize {
        self.0.iter().filter(|finding| finding.severity == severity).count()
    }

    /// Whether this check has found a fault.
    pub(super) fn has_fault(&self, check: &str) -> bool {
        self.0.iter().any(|finding| finding.check == check && finding.severity == Severity::Fault)
    }

    /// Prints the findings for programs.
    pub(super) fn print_json(&self) -> anyhow::Result<()> {
        output::json(&Report { findings: &self.0, warnings: self.count(Severity::Warning), faults: self.count(Severity::Fault) })
    }

    /// Prints the findings for people.
    pub(super) fn print(&self) -> anyhow::Result<()> {
        let width = self.0.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
        self.0.iter().try_for_each(|finding| output::line(text(finding, width)))?;
        output::line(format_args!("faults: {}, warnings: {}", self.count(Severity::Fault), self.count(Severity::Warning)))
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> &[Finding] {
        &self.0
    }
}

fn text(finding: &Finding, width: usize) -> String {
    let severity = match finding.severity {
        Severity::Ok => "ok",
        Severity::Warning => "warning",
        Severity::Fault => "FAULT",
    };
    let mut text = format!("{severity:<7}  {:<width$}  {}", finding.check, finding.what);
    if !finding.why.is_empty() {
        text.push_str(&format!("\n         why: {}", finding.why));
    }
    match &finding.fix {
        Some(Fix::Command(command)) => text.push_str(&format!("\n         fix: {command}")),
        Some(Fix::ByHand(sentence)) => text.push_str(&format!("\n         do:  {sentence}")),
        None => {}
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_see_a_command_on_a_line_of_its_own() {
        let mut findings = Findings::default();
        findings.ok("disk-space", "12 GiB free");
        findings.fault("pin-file", "others can read the PIN", "a PIN is a secret", Fix::command("chmod 600 /pin"));
        let texts: Vec<String> = findings.all().iter().map(|finding| text(finding, 10)).collect();
        assert_eq!(texts[0], "ok       disk-space  12 GiB free");
        assert_eq!(texts[1], "FAULT    pin-file    others can read the PIN\n         why: a PIN is a secret\n         fix: chmod 600 /pin");
        assert_eq!((findings.count(Severity::Fault), findings.has_fault("pin-file"), findings.has_fault("disk-space")), (1, true, false));
    }

    #[test]
    fn programs_see_whether_a_fix_is_a_command() {
        let shown = |fix: Fix| serde_json::to_string(&fix).unwrap();
        assert_eq!(shown(Fix::command("true")), r#"{"command":"true"}"#);
        assert_eq!(shown(Fix::by_hand("Plug it in.")), r#"{"by_hand":"Plug it in."}"#);
    }
}
