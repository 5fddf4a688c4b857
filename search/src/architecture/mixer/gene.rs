//! The genes of a mixer: what may be chosen of its shape, under which key of the campaign file, with which letter of
//! the text form. One table a kind; the campaign file, its schema, spaces and the text form read it.

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
    /// Drawn after the genes that are not: it came later, and what a seed proposes depends on the order.
    pub late: bool,
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
    /// Not a choice, and no key of the file, but drawn as one: what a seed proposes depends on how many genes there are.
    Fixed,
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
        Self { name, about, choice, letter, late: false }
    }

    /// A list of whole numbers, or `"auto"`, which it is by default.
    pub(super) const fn counts(
        name: &'static str,
        letter: &'static str,
        about: &'static str,
    ) -> Self {
        let (choice, letter) = (Choice::NumbersOrAuto(None), Letter::Number(letter));
        Self { name, about, choice, letter, late: false }
    }

    /// On or off.
    pub(super) const fn flag(
        name: &'static str,
        letter: Letter,
        usual: bool,
        about: &'static str,
    ) -> Self {
        Self { name, about, choice: Choice::Flag(usual), letter, late: false }
    }

    /// The same, drawn after all others.
    pub(super) const fn late(self) -> Self {
        Self { late: true, ..self }
    }

    /// The same with another choice.
    pub(super) const fn with(self, choice: Choice) -> Self {
        Self { choice, ..self }
    }

    /// Whether it is on or off.
    pub(crate) fn is_flag(&self) -> bool {
        matches!(self.choice, Choice::Flag(_) | Choice::FlagOfKind)
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
