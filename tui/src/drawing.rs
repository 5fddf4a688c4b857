//! A stack drawn as a column of blocks: on the screen a ratatui widget, in a report [`to_text`].
//!
//! Equal neighbours are folded into one block (`×3`), repeated sequences into a bracket; each block has its mixer's
//! colour and sign, its shape in the letters of the text form, and its feed-forward network as a bar as long as it is
//! wide. Numbers on the right are of one layer.

mod fold;
mod size;

use std::fmt::Write as _;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;
use search::Architecture;
use search::architecture::{Ffn, Layer};
use search::latency::Dtype;

use crate::theme::{Theme, layer_sign};
use crate::{ansi, quantity};
pub use fold::{Block, fold};
pub use size::Parameters;

/// The widget.
#[derive(Debug, Clone, Copy)]
pub struct Drawing<'a> {
    architecture: &'a Architecture,
    context: u32,
    cache: Dtype,
    theme: Theme,
}

/// How much room a block takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Density {
    /// Frame, mixer line and bar.
    Boxed,
    /// Mixer line and bar.
    Open,
    /// One line.
    Dense,
    /// One line, and only the layers are shown.
    Bare,
}

/// The drawing as lines of at most `width` characters, with ANSI colours or without. State and cache are given for
/// `context` positions already seen, keys and values in fp32.
pub fn to_text(architecture: &Architecture, context: u32, width: u16, colour: bool) -> String {
    let drawing = Drawing::new(architecture, context, Theme { colour });
    let blocks = fold(architecture.layers()).len();
    let density = if blocks <= 8 { Density::Boxed } else { Density::Open };
    let height = drawing.lines(width, density).len() as u16;
    ansi::to_text(drawing, width, height, colour)
}

impl<'a> Drawing<'a> {
    /// A drawing of `architecture`, with state and cache for `context` positions already seen.
    pub fn new(architecture: &'a Architecture, context: u32, theme: Theme) -> Self {
        Self { architecture, context, cache: Dtype::F32, theme }
    }

    /// Keys and values are kept in this type; fp32 unless it is given.
    #[must_use]
    pub fn cache_dtype(self, dtype: Dtype) -> Self {
        Self { cache: dtype, ..self }
    }

    fn lines(&self, width: u16, density: Density) -> Vec<Line<'static>> {
        let page = Page::new(self, width);
        let blocks = fold(self.architecture.layers());
        let mut lines = Vec::new();
        if density != Density::Bare {
            lines.extend([page.column_heads(), page.embedding()]);
        }
        if density == Density::Boxed {
            lines.push(page.edge("", '┌', '┐'));
        }
        for (index, block) in blocks.iter().enumerate() {
            if density == Density::Boxed && index > 0 {
                let inner = block.group.is_some_and(|group| group.position > 0);
                lines.push(page.edge(if inner { "│" } else { "" }, '├', '┤'));
            }
            let height = if density >= Density::Dense
                || block.layer.mixer.is_none()
                || block.layer.ffn.is_none()
            {
                1
            } else {
                2
            };
            for row in 0..height {
                lines.push(page.block(block, row, height, density));
            }
        }
        if density == Density::Boxed {
            lines.push(page.edge("", '└', '┘'));
        }
        if density != Density::Bare {
            lines.extend([page.head(), page.total()]);
        }
        lines
    }

    /// Rows that it takes where `most` are there.
    pub fn height(&self, width: u16, most: u16) -> u16 {
        self.fitted(width, most).len() as u16
    }

    /// The roomiest form that fits, or the densest with its middle left out.
    fn fitted(&self, width: u16, height: u16) -> Vec<Line<'static>> {
        let height = usize::from(height);
        let mut lines = Vec::new();
        for density in [Density::Boxed, Density::Open, Density::Dense, Density::Bare] {
            lines = self.lines(width, density);
            if lines.len() <= height {
                return lines;
            }
        }
        let Some(cut) = height.checked_sub(1) else { return Vec::new() };
        let hidden = lines.len() - cut;
        let note = Line::styled(format!("    ⋮ {hidden} more"), self.theme.dim());
        lines.splice(cut.., [note]);
        lines
    }
}

impl Widget for Drawing<'_> {
    fn render(self, area: Rect, buffer: &mut Buffer) {
        let area = area.intersection(buffer.area);
        for (row, line) in self.fitted(area.width, area.height).into_iter().enumerate() {
            buffer.set_line(area.x, area.y + row as u16, &line, area.width);
        }
    }
}

/// The measures of a drawing at a certain width.
struct Page<'a> {
    drawing: &'a Drawing<'a>,
    /// Cells for the layers' numbers.
    gutter: usize,
    /// Cells between the block's edges.
    inner: usize,
    /// Cells of the bracket of repetitions; 0 when nothing repeats.
    bracket: usize,
    /// Cells of a number; 0 when there is no room for numbers.
    parameters: usize,
    memory: usize,
    widest_ffn: u32,
    sizes: size::Parameters,
}

impl<'a> Page<'a> {
    fn new(drawing: &'a Drawing<'a>, width: u16) -> Self {
        let width = usize::from(width);
        let blocks = fold(drawing.architecture.layers());
        let gutter =
            blocks.iter().map(|block| number(block).chars().count()).max().unwrap_or(1).max(2) + 1;
        let times = blocks.iter().filter_map(|block| block.group).map(|group| group.times).max();
        let bracket = times.map_or(0, |times| times.to_string().len() + 3);
        let (parameters, memory) = match width {
            0..40 => (0, 0),
            40..46 => (8, 0),
            _ => (8, 9),
        };
        let inner = width.saturating_sub(gutter + 2 + bracket + parameters + memory).clamp(8, 44);
        let widest_ffn = drawing
            .architecture
            .layers()
            .iter()
            .filter_map(|layer| layer.ffn.map(Ffn::active_width))
            .max()
            .unwrap_or(1);
        Self {
            drawing,
            gutter,
            inner,
            bracket,
            parameters,
            memory,
            widest_ffn,
            sizes: size::Parameters::of(drawing.architecture),
        }
    }

    fn theme(&self) -> Theme {
        self.drawing.theme
    }

    /// Numbers in their columns, right-aligned, after `used` cells of the row.
    fn numbers(&self, parameters: &str, memory: &str) -> Span<'static> {
        let (p, m) = (self.parameters, self.memory);
        let mut text = String::new();
        if p > 0 {
            let _ = write!(text, "{parameters:>p$}");
        }
        if m > 0 {
            let _ = write!(text, "{memory:>m$}");
        }
        Span::styled(text, self.theme().dim())
    }

    fn plain(&self, text: &str, style: Style, parameters: u64) -> Line<'static> {
        let width = self.inner + 2 + self.bracket;
        let text = format!("{:gutter$}{text:<width$}", "", gutter = self.gutter);
        Line::from(vec![
            Span::styled(text, style),
            self.numbers(&quantity::scaled(parameters as f64), ""),
        ])
    }

    fn column_heads(&self) -> Line<'static> {
        let a = self.drawing.architecture;
        let title = format!("{:gutter$}width {}", "", a.d_model(), gutter = self.gutter);
        let width = self.gutter + self.inner + 2 + self.bracket;
        Line::from(vec![
            Span::styled(format!("{title:<width$}"), self.theme().dim()),
            self.numbers("params", if self.memory > 0 { "state" } else { "" }),
        ])
    }

    fn embedding(&self) -> Line<'static> {
        let a = self.drawing.architecture;
        self.plain(
            &format!("embedding of {} tokens", a.vocab()),
            Style::new(),
            self.sizes.embedding,
        )
    }

    fn head(&self) -> Line<'static> {
        let a = self.drawing.architecture;
        let text = if a.tied_embeddings() { "norm, head (tied)" } else { "norm, head" };
        self.plain(text, Style::new(), self.sizes.head)
    }

    fn total(&self) -> Line<'static> {
        let a = self.drawing.architecture;
        let (parameters, memory) =
            (self.sizes.total(), size::memory_bytes(a, self.drawing.context, self.drawing.cache));
        let layers = a.layers().len();
        let plural = if layers == 1 { "" } else { "s" };
        let mut text = format!("{layers} layer{plural}");
        if self.memory > 0 {
            let _ = write!(text, ", state at {}", self.drawing.context);
        }
        if self.parameters == 0 {
            let _ = write!(text, ", {} params", quantity::scaled(parameters as f64));
        }
        let width = self.inner + 2 + self.bracket;
        let text = format!("{:gutter$}{text:<width$}", "", gutter = self.gutter);
        let mut numbers =
            self.numbers(&quantity::scaled(parameters as f64), &quantity::bytes(memory as f64));
        numbers.style = Style::new();
        Line::from(vec![Span::styled(text, self.theme().dim()), numbers])
    }

    fn edge(&self, bracket: &str, left: char, right: char) -> Line<'static> {
        let line = "─".repeat(self.inner);
        let text = format!("{:gutter$}{left}{line}{right} {bracket}", "", gutter = self.gutter);
        Line::styled(text.trim_end().to_owned(), self.theme().dim())
    }

    fn block(
        &self,
        block: &Block<'_>,
        row: usize,
        height: usize,
        density: Density,
    ) -> Line<'static> {
        let theme = self.theme();
        let layer = block.layer;
        let style = theme.layer(layer);
        let number = if row == 0 { number(block) } else { String::new() };
        let mut spans =
            vec![Span::styled(format!("{number:>gutter$}", gutter = self.gutter - 1), theme.dim())];
        let edge = if density == Density::Boxed {
            Span::styled("│", theme.dim())
        } else {
            Span::raw(" ")
        };
        spans.extend([Span::raw(" "), edge.clone()]);

        let times =
            if row == 0 && block.count > 1 { format!("×{} ", block.count) } else { String::new() };
        let room = self.inner.saturating_sub(times.chars().count());
        let body = if row == 0 {
            self.mixer(layer, style, room, height == 1)
        } else {
            self.ffn(layer, style, room)
        };
        let used: usize = body.iter().map(Span::width).sum();
        spans.extend(body);
        spans.push(Span::raw(" ".repeat(room.saturating_sub(used))));
        spans.push(Span::styled(times, theme.heading()));
        spans.push(edge);

        if self.bracket > 0 {
            let width = self.bracket;
            let text = block.group.map_or(String::new(), |group| {
                let last = group.position + 1 == group.length && row + 1 == height;
                match (group.position, row) {
                    (0, 0) => format!(" ╮×{}", group.times),
                    _ if last => " ╯".to_owned(),
                    _ => " │".to_owned(),
                }
            });
            spans.push(Span::styled(format!("{text:<width$}"), theme.dim()));
        }
        let (mixer, ffn) = self.sizes.layers[block.first];
        let Drawing { architecture, context, cache, .. } = *self.drawing;
        let memory = size::layer_memory_bytes(layer, context, architecture.meta_tokens(), cache);
        let parameters = if height == 1 { mixer + ffn } else { [mixer, ffn][row] };
        let memory =
            if row == 0 && memory > 0 { quantity::bytes(memory as f64) } else { String::new() };
        spans.push(self.numbers(&quantity::scaled(parameters as f64), &memory));
        Line::from(spans)
    }

    /// `▌▲ gdn  h3 k64 v128`, with the feed-forward width when it has no line of its own.
    fn mixer(&self, layer: &Layer, style: Style, room: usize, alone: bool) -> Vec<Span<'static>> {
        let bold = style.patch(self.theme().heading());
        let Some(mixer) = &layer.mixer else {
            return self.ffn(layer, style, room);
        };
        let mut shape = mixer.brief();
        if alone && let Some(ffn) = layer.ffn {
            let _ = write!(shape, "  {} {}", ffn.kind.word(), ffn.brief());
        }
        let name = format!("{} {:<4} ", layer_sign(layer), mixer.kind().name());
        let shape = quantity::shortened(&shape, room.saturating_sub(name.chars().count() + 1));
        vec![Span::styled("▌", style), Span::styled(name, bold), Span::raw(shape)]
    }

    /// `▌  ffn ━━━━━━━━ 768`, as long as a token's way through it is wide.
    fn ffn(&self, layer: &Layer, style: Style, room: usize) -> Vec<Span<'static>> {
        let Some(ffn) = layer.ffn else { return Vec::new() };
        let sign = if layer.mixer.is_none() { layer_sign(layer) } else { ' ' };
        let (number, word) = (ffn.brief(), ffn.kind.word());
        let taken = "▌    ".chars().count() + word.len() + 2 + number.len();
        let longest = room.saturating_sub(taken).min(24);
        let length = (f64::from(ffn.active_width()) / f64::from(self.widest_ffn) * longest as f64)
            .round()
            .max(1.0) as usize;
        let bar = "━".repeat(length.min(longest));
        let lead = Span::styled("▌", style);
        vec![
            lead,
            Span::raw(format!("{sign} {word}  ")),
            Span::styled(bar, style),
            Span::raw(format!(" {number}")),
        ]
    }
}

/// The layers of a block, from 1: `4` or `1–3`.
fn number(block: &Block<'_>) -> String {
    let first = block.first + 1;
    if block.count == 1 {
        first.to_string()
    } else {
        format!("{first}–{}", first + block.count - 1)
    }
}

/// One sign per layer, each in its mixer's colour: a stack in a table's cell. Long stacks end with `…`.
pub fn strip(architecture: &Architecture, width: usize, theme: Theme) -> Line<'static> {
    let layers = architecture.layers();
    let shown = if layers.len() > width { width.saturating_sub(1) } else { layers.len() };
    let mut spans: Vec<Span> = layers[..shown]
        .iter()
        .map(|layer| Span::styled(layer_sign(layer).to_string(), theme.layer(layer)))
        .collect();
    if shown < layers.len() && width > 0 {
        spans.push(Span::styled("…", theme.dim()));
    }
    Line::from(spans)
}
