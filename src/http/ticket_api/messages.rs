//! The texts of answers, in three languages, from Fluent catalogues that are part of the program.

use std::{
    collections::HashMap,
    fmt::Display,
    sync::{Mutex, PoisonError},
};

use fluent_bundle::{FluentArgs, FluentResource, concurrent::FluentBundle};
use unic_langid::{LanguageIdentifier, langid};

use crate::domain::ids::CallerId;

/// A language in which answers are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Language {
    /// Ukrainian.
    #[default]
    Uk,
    /// Russian.
    Ru,
    /// English.
    En,
}

impl Language {
    pub(super) const ALL: [Self; 3] = [Self::Uk, Self::Ru, Self::En];

    const fn code(self) -> &'static str {
        match self {
            Self::Uk => "uk",
            Self::Ru => "ru",
            Self::En => "en",
        }
    }

    /// The language of a tag such as `uk`, `en-GB` or `RU_ru`.
    pub(super) fn of_tag(tag: &str) -> Option<Self> {
        let primary = tag.split(['-', '_']).next()?;
        Self::ALL.into_iter().find(|language| language.code().eq_ignore_ascii_case(primary))
    }

    /// The language that an `Accept-Language` header (RFC 9110 section 12.5.4) likes best; `None` if it names none of ours.
    pub(super) fn of_accept_language(header: &str) -> Option<Self> {
        let mut best: Option<(Self, f32)> = None;
        for part in header.split(',') {
            let (tag, parameters) = part.split_once(';').unwrap_or((part, ""));
            let quality = parameters.trim().strip_prefix("q=").map_or(1.0, |q| q.parse().unwrap_or(0.0));
            if let Some(language) = Self::of_tag(tag.trim())
                && quality > best.map_or(0.0, |(_, best)| best)
            {
                best = Some((language, quality));
            }
        }
        best.map(|(language, _)| language)
    }
}

/// A text of the catalogues, with what is put into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Text {
    key: &'static str,
    args: Vec<(&'static str, String)>,
}

impl Text {
    pub(super) const fn new(key: &'static str) -> Self {
        Self { key, args: Vec::new() }
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Display) -> Self {
        self.args.push((name, value.to_string()));
        self
    }
}

/// All texts in all languages.
pub(in crate::http) struct Messages {
    uk: FluentBundle<FluentResource>,
    ru: FluentBundle<FluentResource>,
    en: FluentBundle<FluentResource>,
}

impl Messages {
    pub(in crate::http) fn embedded() -> Self {
        Self {
            uk: bundle(langid!("uk"), include_str!("messages/uk.ftl")),
            ru: bundle(langid!("ru"), include_str!("messages/ru.ftl")),
            en: bundle(langid!("en"), include_str!("messages/en.ftl")),
        }
    }

    pub(super) fn text(&self, language: Language, text: &Text) -> String {
        let bundle = match language {
            Language::Uk => &self.uk,
            Language::Ru => &self.ru,
            Language::En => &self.en,
        };
        let Some(pattern) = bundle.get_message(text.key).and_then(|message| message.value()) else { return text.key.to_owned() };
        let args: FluentArgs<'_> = text.args.iter().map(|(name, value)| (*name, value.as_str())).collect();
        // What is missing shows as `{$name}`; there is nothing better to say at this point.
        bundle.format_pattern(pattern, Some(&args), &mut Vec::new()).into_owned()
    }
}

fn bundle(language: LanguageIdentifier, source: &str) -> FluentBundle<FluentResource> {
    // What cannot be parsed is left out of the resource; a test sees to it that there is nothing such.
    let resource = FluentResource::try_new(source.to_owned()).unwrap_or_else(|(resource, _errors)| resource);
    let mut bundle = FluentBundle::new_concurrent(vec![language]);
    // Marks around what is put in are for mixed directions of writing; clients would see them as rubbish.
    bundle.set_use_isolating(false);
    bundle.add_resource_overriding(resource);
    bundle
}

/// The languages that callers have chosen by `POST /language/{code}`, for as long as the gateway runs.
#[derive(Default)]
pub(in crate::http) struct Languages(Mutex<HashMap<CallerId, Language>>);

impl Languages {
    pub(super) fn choose(&self, caller: &CallerId, language: Language) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(caller.clone(), language);
    }

    pub(super) fn chosen_by(&self, caller: &CallerId) -> Option<Language> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(caller).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn source(language: Language) -> &'static str {
        match language {
            Language::Uk => include_str!("messages/uk.ftl"),
            Language::Ru => include_str!("messages/ru.ftl"),
            Language::En => include_str!("messages/en.ftl"),
        }
    }

    /// Keys, each with the names of what is put into its text.
    fn keys(language: Language) -> BTreeMap<&'static str, BTreeSet<&'static str>> {
        let lines = source(language).lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let entries = lines.map(|line| line.split_once(" = ").unwrap_or_else(|| panic!("{line}")));
        let mut keys = BTreeMap::new();
        for (key, text) in entries {
            let names = text.split("{ $").skip(1).map(|rest| rest.split_once(" }").unwrap().0).collect();
            assert_eq!(keys.insert(key, names), None, "{key} stands twice");
        }
        keys
    }

    #[test]
    fn the_three_catalogues_have_the_same_keys_with_the_same_arguments() {
        let uk = keys(Language::Uk);
        assert!(uk.len() > 100);
        assert_eq!(uk, keys(Language::Ru));
        assert_eq!(uk, keys(Language::En));
    }

    #[test]
    fn every_text_can_be_read_in_every_language() {
        let messages = Messages::embedded();
        for language in Language::ALL {
            assert!(FluentResource::try_new(source(language).to_owned()).is_ok(), "{language:?}");
            for (key, names) in keys(language) {
                let text = names.into_iter().fold(Text::new(key), |text, name| text.with(name, "VALUE"));
                let said = messages.text(language, &text);
                assert!(said != key && !said.contains('{') && !said.contains('\u{2068}'), "{language:?} {key}: {said}");
            }
        }
    }

    #[test]
    fn accept_language_is_followed_by_quality() {
        let of = Language::of_accept_language;
        assert_eq!(of("ru"), Some(Language::Ru));
        assert_eq!(of("de, en-GB;q=0.8, ru;q=0.9"), Some(Language::Ru));
        assert_eq!(of("uk-UA,uk;q=0.9,en-US;q=0.8"), Some(Language::Uk));
        assert_eq!(of("en;q=0, ru;q=0.1"), Some(Language::Ru));
        for nothing in ["*", "de", "", "en;q=0", "en;q=x", ";;,"] {
            assert_eq!(of(nothing), None, "{nothing}");
        }
    }
}
