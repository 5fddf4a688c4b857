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

/// A colour of pages and pictures: on light ground, on dark ground.
pub type Ink = (&'static str, &'static str);

/// What a thing is drawn with where there are no terminal's colours: the role of each method of [`Theme`], with the hues of
/// Okabe and Ito, which the colour-blind tell apart.
pub const INKS: [(&str, Ink); 13] = [
    ("paper", ("#fdfdfb", "#101316")),
    ("ground", ("#ffffff", "#161a1e")),
    ("text", ("#1c2024", "#e4e7ea")),
    ("dim", ("#646c75", "#98a1aa")),
    ("rule", ("#d9dde1", "#31373d")),
    ("grid", ("#eceef0", "#252a2f")),
    ("dot", ("#8b949e", "#7d868f")),
    ("ffn", ("#c3c9cf", "#545d66")),
    ("head", ("#e1e4e7", "#3a4249")),
    ("front", ("#00789a", "#4bbedb")),
    ("reference", ("#c27c00", "#f0b23c")),
    ("active", ("#00875f", "#35c296")),
    ("failure", ("#b8371a", "#f08a6c")),
];

/// The ink of a mixer, of the same hue as its colour in the terminal.
pub fn mixer_ink(kind: MixerKind) -> Ink {
    match kind.row().colour {
        Colour::Red => ("#d55e00", "#ee7d33"),
        Colour::Green => ("#009e73", "#2dbb92"),
        Colour::Yellow => ("#e69f00", "#efb43f"),
        Colour::Blue => ("#2f5fa8", "#6c98de"),
        Colour::Magenta => ("#cc79a7", "#db92bb"),
        Colour::Cyan => ("#0087ad", "#3fb6d6"),
        Colour::LightRed => ("#e4736b", "#f29b94"),
        Colour::LightGreen => ("#7d9c00", "#a7c442"),
        Colour::LightYellow => ("#a38a00", "#e2d35a"),
        Colour::LightBlue => ("#7d8bdc", "#a0aef2"),
        Colour::LightMagenta => ("#8f5fa5", "#b78ecb"),
        Colour::LightCyan => ("#56b4e9", "#82caf4"),
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
