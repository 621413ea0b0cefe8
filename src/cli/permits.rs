//! `sealgate permits`: what waits for consent, what has it, and an operator's decisions. Through the gateway that runs.

mod watch;

use super::{control_client::ControlClient, output, place::GatewayArgs, runtime};
use crate::{
    domain::{ids::PermitId, permit::PermitState},
    http::control::permits::{GrantDto, PermitDto, PermitsDto},
};

/// Arguments of `permits`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// List what waits for a decision, and what can still be used.
    List(ListArgs),
    /// Show one, with what its caller says of it.
    Show(OneArgs),
    /// Allow what was asked for.
    Grant(GrantArgs),
    /// Refuse what was asked for.
    Refuse(OneArgs),
    /// Take a permission back; signatures that have begun go on.
    Revoke(OneArgs),
    /// Show each request as it comes, and ask whether to allow it: y, n, or a number of signatures.
    Watch(WatchArgs),
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct OneArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// The permission.
    permit: PermitId,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct GrantArgs {
    #[command(flatten)]
    one: OneArgs,
    /// For so many signatures, not more than were asked for.
    #[arg(long, value_name = "N")]
    uses: Option<u32>,
}

#[derive(Debug, clap::Args)]
struct WatchArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
}

/// Carries out what was asked for.
pub(super) fn run(args: Args) -> anyhow::Result<()> {
    match args.what {
        What::List(args) => list(&args),
        What::Show(args) => show(&args),
        What::Grant(args) => decide(&args.one, "grant", &GrantDto { uses: args.uses }),
        What::Refuse(args) => decide(&args, "refuse", &GrantDto::default()),
        What::Revoke(args) => decide(&args, "revoke", &GrantDto::default()),
        What::Watch(args) => watch::run(&args.gateway.place()?.control),
    }
}

fn list(args: &ListArgs) -> anyhow::Result<()> {
    let gateway = ControlClient::expect(&args.gateway.place()?.control)?;
    let found: PermitsDto = runtime()?.block_on(gateway.get("/permits"))?;
    if args.json {
        return output::json(&found);
    }
    let head = ["PERMISSION", "STATE", "UNTIL", "CALLER", "SIGNATURES", "KEYS"].map(str::to_owned).to_vec();
    let rows: Vec<_> = std::iter::once(head).chain(found.waiting.iter().chain(&found.live).map(row)).collect();
    output::table(&rows)
}

fn row(permit: &PermitDto) -> Vec<String> {
    let uses = if permit.state == PermitState::Asked { asked_uses(permit) } else { format!("{} of {}", permit.uses_left, permit.uses) };
    let state = permit.state.as_str().to_owned();
    vec![permit.id.to_string(), state, permit.expires.to_rfc3339(), permit.caller.to_string(), uses, permit.keys.clone()]
}

fn show(args: &OneArgs) -> anyhow::Result<()> {
    let gateway = ControlClient::expect(&args.gateway.place()?.control)?;
    let permit: PermitDto = runtime()?.block_on(gateway.get(&format!("/permits/{}", args.permit)))?;
    if args.json { output::json(&permit) } else { output::line(described(&permit)) }
}

fn decide(args: &OneArgs, what: &str, order: &GrantDto) -> anyhow::Result<()> {
    let gateway = ControlClient::expect(&args.gateway.place()?.control)?;
    let permit: PermitDto = runtime()?.block_on(gateway.post(&format!("/permits/{}/{what}", args.permit), order))?;
    if args.json { output::json(&permit) } else { output::line(told(&permit)) }
}

/// What became of a permit, in one line.
fn told(permit: &PermitDto) -> String {
    match permit.state {
        PermitState::Granted => format!("{} may have {} signatures made until {}", permit.caller, permit.uses, permit.expires.to_rfc3339()),
        PermitState::Asked => format!("another operator must allow {} too", permit.id),
        state => format!("{} is {}", permit.id, state.as_str()),
    }
}

fn asked_uses(permit: &PermitDto) -> String {
    permit.asked_uses.map_or_else(|| "-".to_owned(), |uses| uses.to_string())
}

/// Everything about a permit, line by line.
fn described(permit: &PermitDto) -> String {
    let optional = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let mut rows = vec![
        ("permission", permit.id.to_string()),
        ("state", permit.state.as_str().to_owned()),
        ("caller", permit.caller.to_string()),
        ("origin", optional(permit.origin.clone())),
        ("address", optional(permit.address.map(|address| address.to_string()))),
        ("keys", permit.keys.clone()),
    ];
    match permit.state {
        PermitState::Asked => rows.extend([("signatures", asked_uses(permit)), ("decide by", permit.expires.to_rfc3339())]),
        _ => rows.extend([("signatures left", format!("{} of {}", permit.uses_left, permit.uses)), ("until", permit.expires.to_rfc3339())]),
    }
    rows.extend(permit.digests.iter().map(|digest| ("only for", digest.clone())));
    if let Some(document) = &permit.document {
        rows.push(("document", format!("{} bytes, SHA-256 {}", document.len, document.sha256)));
    }
    if permit.operators.is_some_and(|operators| operators > 1) {
        rows.push(("needs", "two operators".to_owned()));
    }
    rows.extend(permit.allowed_by.iter().map(|name| ("allowed by", name.to_string())));
    rows.extend(permit.words.as_deref().map(|words| ("in its own words", harmless(words))));
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines: Vec<_> = rows.into_iter().map(|(name, value)| format!("{name:<width$}  {}", harmless(&value))).collect();
    lines.join("\n")
}

/// The most characters that are shown of a caller's own words.
const WORDS_MAX: usize = 2_000;

/// A caller's text that can do nothing to a terminal: what steers it, and what makes text look like other text, is left out.
fn harmless(text: &str) -> String {
    let steers =
        |c: char| c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    let mut shown: String = text.chars().map(|c| if c.is_whitespace() { ' ' } else { c }).filter(|c| !steers(*c)).take(WORDS_MAX).collect();
    if text.chars().count() > WORDS_MAX {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_words_cannot_steer_the_terminal_or_look_like_ours() {
        assert_eq!(harmless("<b>a</b>\x1b[2J\r\nallowed by  root\u{202e}"), "<b>a</b>[2J  allowed by  root");
        assert_eq!(harmless(&"я".repeat(WORDS_MAX + 1)).chars().count(), WORDS_MAX + 1);
    }
}
