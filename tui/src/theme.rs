//! Colours and signs, the same on every screen and in every report.
//!
//! Only the terminal's own sixteen colours are used, never white or black, so that light and dark terminals both work;
//! without colour (`NO_COLOR`) weight, dimming and inversion carry the same distinctions.

use ratatui::style::{Color, Modifier, Style};
use search::architecture::{Colour, Layer, MixerKind};

/// How things look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Theme {
    /// Whether colours may be used.
    pub colour: bool,
}

impl Theme {
    /// With colours.
    pub const COLOUR: Self = Self { colour: true };
    /// Without.
    pub const PLAIN: Self = Self { colour: false };

    /// Colours unless the environment says `NO_COLOR` (<https://no-color.org>: present and not empty).
    pub fn from_env() -> Self {
        Self { colour: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) }
    }

    fn foreground(self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }

    /// Things in the background: axes, frames, dominated points.
    pub fn dim(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    /// Headings.
    pub fn heading(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// Members of the front.
    pub fn front(self) -> Style {
        self.foreground(Color::Cyan).add_modifier(Modifier::BOLD)
    }

    /// Reference stacks.
    pub fn reference(self) -> Style {
        self.foreground(Color::Yellow)
    }

    /// The selected candidate.
    pub fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// What is at work now.
    pub fn active(self) -> Style {
        self.foreground(Color::Green)
    }

    /// What went wrong.
    pub fn failure(self) -> Style {
        self.foreground(Color::Red)
    }

    /// Keys that can be pressed.
    pub fn key(self) -> Style {
        self.foreground(Color::Cyan)
    }

    /// A mixer's colour.
    pub fn mixer(self, kind: MixerKind) -> Style {
        self.foreground(match kind.row().colour {
            Colour::Red => Color::Red,
            Colour::Green => Color::Green,
            Colour::Yellow => Color::Yellow,
            Colour::Blue => Color::Blue,
            Colour::Magenta => Color::Magenta,
            Colour::Cyan => Color::Cyan,
            Colour::LightRed => Color::LightRed,
            Colour::LightGreen => Color::LightGreen,
            Colour::LightYellow => Color::LightYellow,
            Colour::LightBlue => Color::LightBlue,
            Colour::LightMagenta => Color::LightMagenta,
            Colour::LightCyan => Color::LightCyan,
        })
    }

    /// A layer's colour: its mixer's.
    pub fn layer(self, layer: &Layer) -> Style {
        layer.mixer.map_or_else(Style::new, |mixer| self.mixer(mixer.kind()))
    }
}

/// A mixer's sign: attention sees a square of positions, its window half of one; the deltas are triangles.
pub fn mixer_sign(kind: MixerKind) -> char {
    kind.row().sign
}

/// The sign of a feed-forward network without a mixer.
pub const FFN_SIGN: char = '▬';

/// A layer's sign: its mixer's, or that of a lone feed-forward network.
pub fn layer_sign(layer: &Layer) -> char {
    layer.mixer.map_or(FFN_SIGN, |mixer| mixer_sign(mixer.kind()))
}

/// What stands for what in drawings of stacks: every sign with its colour and its meaning.
pub fn signs(theme: Theme) -> impl Iterator<Item = (char, Style, &'static str)> {
    let mixer = move |kind: MixerKind| (mixer_sign(kind), theme.mixer(kind), kind.title());
    let ffn = (FFN_SIGN, Style::new(), "feed-forward network alone");
    MixerKind::ALL.into_iter().map(mixer).chain([ffn])
}
