//! The genes of a mixer: what may be chosen of its shape, under which key of the campaign file, with which letter of
//! the text form. One table a kind; the campaign file, its schema, spaces and the text form read it.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::architecture::limits::MAX_WIDTH;

/// One number or switch of a mixer's shape.
#[derive(Debug, Clone, Copy)]
pub struct Gene {
    /// Its key in the campaign file, and its name where a proposal is told.
    pub name: &'static str,
    /// What it is, for readers of the campaign file's schema.
    pub about: &'static str,
    /// What it may be, and what it is where the file says nothing.
    pub choice: Choice,
    /// How the text form says it.
    pub letter: Letter,
    /// When it is drawn.
    pub turn: Turn,
    /// The least and the largest number that it may be.
    pub within: (u32, u32),
}

/// When a gene is drawn. What a seed proposes depends on how many genes there are and on their order, so one that comes to
/// a kind which campaigns have searched is [`Turn::IfChosen`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// In the order of the table.
    First,
    /// After these.
    Late,
    /// After all others, and only where the campaign file leaves a choice. Where the file says nothing, nothing of it is
    /// written, in the file that is kept, in JSON or in the text form.
    IfChosen,
}

/// What a gene may be.
#[derive(Debug, Clone, Copy)]
pub enum Choice {
    /// Whole numbers; these by default.
    Numbers(&'static [u32]),
    /// Whole numbers, or `"auto"`, derived from the other genes and d_model; none: `"auto"` by default.
    NumbersOrAuto(Option<&'static [u32]>),
    /// On or off; this by default.
    Flag(bool),
    /// On or off; by default as the kind's reference layer.
    FlagOfKind,
    /// One of several forms, the first by default.
    Forms(&'static [Form]),
    /// Not a choice, and no key of the file, but drawn as one: what a seed proposes depends on how many genes there are.
    Fixed,
}

/// One of the forms of a gene, as campaign files and JSON name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `false`
    Off,
    /// `true`
    On,
    /// A word.
    Named(&'static str),
}

/// How the text form says a gene.
#[derive(Debug, Clone, Copy)]
pub enum Letter {
    /// `h=3`
    Number(&'static str),
    /// `vg=2`, left out at a usual value.
    Unless(&'static str, u32),
    /// A word where it is on.
    On(&'static str),
    /// A word where it is off.
    Off(&'static str),
    /// For each form its word, the first of which is empty.
    Forms(&'static [&'static str]),
    /// Not at all.
    Silent,
}

impl Gene {
    /// A list of whole numbers.
    pub(super) const fn numbers(
        name: &'static str,
        letter: &'static str,
        usual: &'static [u32],
        about: &'static str,
    ) -> Self {
        let (choice, letter) = (Choice::Numbers(usual), Letter::Number(letter));
        Self::first(name, about, choice, letter)
    }

    /// A list of whole numbers, or `"auto"`, which it is by default.
    pub(super) const fn counts(
        name: &'static str,
        letter: &'static str,
        about: &'static str,
    ) -> Self {
        let (choice, letter) = (Choice::NumbersOrAuto(None), Letter::Number(letter));
        Self::first(name, about, choice, letter)
    }

    /// On or off.
    pub(super) const fn flag(
        name: &'static str,
        letter: Letter,
        usual: bool,
        about: &'static str,
    ) -> Self {
        Self::first(name, about, Choice::Flag(usual), letter)
    }

    /// One of several forms, with a word of the text form for each.
    pub(super) const fn forms(
        name: &'static str,
        forms: &'static [Form],
        words: &'static [&'static str],
        about: &'static str,
    ) -> Self {
        Self::first(name, about, Choice::Forms(forms), Letter::Forms(words))
    }

    const fn first(
        name: &'static str,
        about: &'static str,
        choice: Choice,
        letter: Letter,
    ) -> Self {
        Self { name, about, choice, letter, turn: Turn::First, within: (1, MAX_WIDTH) }
    }

    /// The same, drawn after all others.
    pub(super) const fn late(self) -> Self {
        Self { turn: Turn::Late, ..self }
    }

    /// The same, drawn only where the campaign file leaves a choice.
    pub(super) const fn if_chosen(self) -> Self {
        Self { turn: Turn::IfChosen, ..self }
    }

    /// The same within other bounds.
    pub(super) const fn within(self, least: u32, largest: u32) -> Self {
        Self { within: (least, largest), ..self }
    }

    /// The same with another choice.
    pub(super) const fn with(self, choice: Choice) -> Self {
        Self { choice, ..self }
    }

    /// One of its values as the campaign file says it.
    pub(crate) fn show(&self, value: u32) -> String {
        match self.choice {
            Choice::Flag(_) | Choice::FlagOfKind => (value == 1).to_string(),
            Choice::Forms(forms) => forms[value as usize].to_string(),
            _ => value.to_string(),
        }
    }
}

impl Serialize for Form {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_bool(false),
            Self::On => serializer.serialize_bool(true),
            Self::Named(name) => serializer.serialize_str(name),
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "false",
            Self::On => "true",
            Self::Named(name) => name,
        })
    }
}

/// What the genes of a mixer are, by name: a number, 0 or 1 of a flag, or none where it is to be derived.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings(Vec<(&'static str, Option<u32>)>);

/// Why settings make no mixer: the gene to blame, expected and got.
pub(crate) type Misfit = (&'static str, String);

impl Settings {
    /// Says what a gene is.
    pub(crate) fn set(&mut self, name: &'static str, value: Option<u32>) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, setting)) => *setting = value,
            None => self.0.push((name, value)),
        }
    }

    /// What a gene is; none where it is to be derived, or the kind does not have it.
    pub(super) fn get(&self, name: &str) -> Option<u32> {
        self.0.iter().find(|(known, _)| *known == name).and_then(|(_, value)| *value)
    }

    /// A gene that is given, or was derived.
    pub(super) fn number(&self, name: &str) -> u32 {
        self.get(name).expect("a gene without a derived form is given, the others were derived")
    }

    /// A flag; none where the reference layer decides.
    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        self.get(name).map(|value| value == 1)
    }
}

/// `total / by`, if that is whole; else `gene` is to blame, which has the value `by`.
pub(super) fn divided(gene: &'static str, total: u32, by: u32) -> Result<u32, Misfit> {
    if by > 0 && total >= by && total.is_multiple_of(by) {
        Ok(total / by)
    } else {
        Err((gene, format!("{gene} = {by} does not divide {total}")))
    }
}
