//! Pictures: a plane with axes, and what makes a drawing a file of its own.

use maud::{Markup, PreEscaped, html};
use search::architecture::MixerKind;
use serde::Serialize;
use tui::plot::Axis;
use tui::theme::{INKS, mixer_ink};

use super::tables::prose;

/// The rules of every drawing; their colours are variables.
pub(super) const CSS: &str = include_str!("figure.css");

/// A drawing with what is to be said of it.
#[derive(Debug, Serialize)]
pub(super) struct Figure {
    /// The name of its file, without an ending.
    pub(super) name: String,
    /// What it shows, in a few words.
    pub(super) title: String,
    /// How it is to be read.
    pub(super) caption: String,
    #[serde(skip)]
    pub(super) size: (f64, f64),
    /// What is in the `svg` element.
    #[serde(skip)]
    pub(super) body: Markup,
}

impl Figure {
    /// The drawing in a page, with its caption.
    pub(super) fn in_page(&self) -> Markup {
        html! {
            figure id=(format!("figure-{}", self.name)) {
                (svg(self.size, &self.title, &self.body))
                figcaption { (prose(&self.caption)) }
            }
        }
    }

    /// The drawing as a file, in the colours of light ground.
    pub(super) fn file(&self) -> String {
        let (width, height) = self.size;
        let view = format!("0 0 {} {}", at(width), at(height));
        let markup = html! {
            svg xmlns="http://www.w3.org/2000/svg" viewBox=(view) width=(at(width)) height=(at(height))
                class="plot" role="img" {
                title { (self.title) }
                desc { (self.caption) }
                style { (PreEscaped(CSS.replace(".plot ", ""))) }
                (self.body)
            }
        };
        // Few programs but browsers know variables.
        let text = markup.into_string() + "\n";
        variables(|(light, _)| light)
            .into_iter()
            .fold(text, |text, (name, ink)| text.replace(&format!("var(--{name})"), ink))
    }
}

/// A drawing that scales with the page.
pub(super) fn svg((width, height): (f64, f64), title: &str, body: &Markup) -> Markup {
    html! {
        svg class="plot" viewBox=(format!("0 0 {} {}", at(width), at(height))) role="img" aria-label=(title)
            style=(format!("max-width:{}px", at(width))) {
            (body)
        }
    }
}

/// The variables of all colours: names without dashes, and inks.
pub(super) fn variables(
    of: fn((&'static str, &'static str)) -> &'static str,
) -> Vec<(String, &'static str)> {
    let mixers = MixerKind::ALL.map(|kind| (format!("m-{}", kind.name()), of(mixer_ink(kind))));
    let roles = INKS.map(|(role, ink)| (role.to_owned(), of(ink)));
    roles.into_iter().chain(mixers).collect()
}

/// What a mixer, or the want of one, is filled with.
pub(super) fn fill(kind: Option<MixerKind>) -> String {
    kind.map_or_else(|| "var(--ffn)".to_owned(), |kind| format!("var(--m-{})", kind.name()))
}

/// A coordinate: a tenth of a pixel is enough.
pub(super) fn at(x: f64) -> String {
    let text = format!("{x:.1}");
    let short = text.strip_suffix(".0").unwrap_or(&text);
    if short == "-0" { "0".to_owned() } else { short.to_owned() }
}

/// How wide a text will be at most, in a font of this size.
pub(super) fn width_of(text: &str, size: f64) -> f64 {
    text.chars().map(|c| if "il.,:'| 1()[]".contains(c) { 0.36 } else { 0.58 }).sum::<f64>() * size
}

/// A line through points.
pub(super) fn path(points: impl IntoIterator<Item = (f64, f64)>) -> String {
    let mut path = String::new();
    for (x, y) in points {
        let word = if path.is_empty() { "M" } else { "L" };
        path.extend([word, &at(x), " ", &at(y)]);
    }
    path
}

/// A field between two axes.
pub(super) struct Plane {
    pub(super) x: Axis,
    pub(super) y: Axis,
    /// Its left and right edge.
    pub(super) across: (f64, f64),
    /// Its upper and lower edge.
    pub(super) down: (f64, f64),
}

impl Plane {
    /// Where a value lies, within the field or at its edge.
    pub(super) fn px(&self, value: f64) -> Option<f64> {
        let (left, right) = self.across;
        self.x.position(value).map(|at| left + at.clamp(0.0, 1.0) * (right - left))
    }

    /// The same of the other axis.
    pub(super) fn py(&self, value: f64) -> Option<f64> {
        let (top, bottom) = self.down;
        self.y.position(value).map(|at| bottom - at.clamp(0.0, 1.0) * (bottom - top))
    }

    /// Both.
    pub(super) fn place(&self, (x, y): (f64, f64)) -> Option<(f64, f64)> {
        Some((self.px(x)?, self.py(y)?))
    }

    /// The axes with ticks and names.
    pub(super) fn frame(&self, x_title: &str, y_title: &str) -> Markup {
        let ((left, right), (top, bottom)) = (self.across, self.down);
        let columns = ((right - left) / 78.0) as usize;
        let rows = ((bottom - top) / 46.0) as usize;
        html! {
            @for tick in self.y.ticks(rows.max(2)) {
                @if let Some(y) = self.py(tick.value) {
                    line class="grid" x1=(at(left)) x2=(at(right)) y1=(at(y)) y2=(at(y)) {}
                    text class="tick" x=(at(left - 8.0)) y=(at(y + 4.0)) text-anchor="end" { (tick.label) }
                }
            }
            @for tick in self.x.ticks(columns.max(2)) {
                @if let Some(x) = self.px(tick.value) {
                    line class="mark" x1=(at(x)) x2=(at(x)) y1=(at(bottom)) y2=(at(bottom + 4.0)) {}
                    text class="tick" x=(at(x)) y=(at(bottom + 17.0)) text-anchor="middle" { (tick.label) }
                }
            }
            line class="axis" x1=(at(left)) x2=(at(right)) y1=(at(bottom)) y2=(at(bottom)) {}
            text class="name" x="0" y=(at(top - 14.0)) { (y_title) }
            text class="name" x=(at(right)) y=(at(bottom + 34.0)) text-anchor="end" { (x_title) }
        }
    }
}

/// Signs with words, from `right` leftwards, in one row.
pub(super) fn legend(entries: &[(Markup, &str)], right: f64, y: f64) -> Markup {
    let width = |word: &str| 16.0 + width_of(word, 11.5) + 14.0;
    let first = right - entries.iter().map(|(_, word)| width(word)).sum::<f64>() + 14.0;
    let lefts = entries.iter().scan(first, |left, (_, word)| {
        let own = *left;
        *left += width(word);
        Some(own)
    });
    html! {
        @for ((sign, word), left) in entries.iter().zip(lefts) {
            g transform=(format!("translate({} {})", at(left), at(y))) {
                (sign)
                text class="key" x="12" y="4" { (word) }
            }
        }
    }
}

/// A place for a name that no other name has, `step` after `step` from where it is wanted.
pub(super) fn free(ends: &mut Vec<f64>, wanted: f64, step: f64) -> f64 {
    let mut y = wanted;
    while let Some(other) = ends.iter().find(|other| (**other - y).abs() < 14.0) {
        y = other + step;
    }
    ends.push(y);
    y
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coordinates_are_short() {
        assert_eq!([1.0, 2.25, -0.04, 100.04].map(at), ["1", "2.2", "0", "100"]);
        assert_eq!(path([(0.0, 1.0), (2.5, 3.0)]), "M0 1L2.5 3");
    }

    #[test]
    fn a_file_has_its_colours_and_is_well_formed() {
        let figure = Figure {
            name: "a".to_owned(),
            title: "a < b & c".to_owned(),
            caption: "\"quoted\"".to_owned(),
            size: (10.0, 10.0),
            body: html! { circle style="fill:var(--m-gdn)" r="1" {} },
        };
        let file = figure.file();
        assert!(!file.contains("var("), "{file}");
        let parsed = roxmltree::Document::parse(&file).expect("XML");
        let title = parsed
            .descendants()
            .find(|node| node.has_tag_name(("http://www.w3.org/2000/svg", "title")));
        assert_eq!(title.and_then(|node| node.text()), Some("a < b & c"));
    }

    #[test]
    fn values_beyond_an_axis_stay_at_its_edge() {
        let plane = Plane {
            x: Axis::linear(0.0, 1.0),
            y: Axis::linear(0.0, 1.0),
            across: (10.0, 110.0),
            down: (0.0, 50.0),
        };
        assert_eq!(plane.px(9.0), Some(110.0));
        assert_eq!(plane.py(9.0), Some(0.0));
        assert_eq!(plane.px(f64::NAN), None);
    }

    #[test]
    fn names_do_not_lie_on_each_other() {
        let mut ends = Vec::new();
        let placed = [50.0, 52.0, 51.0].map(|y| free(&mut ends, y, 14.5));
        for (i, a) in placed.iter().enumerate() {
            assert!(placed[i + 1..].iter().all(|b| (a - b).abs() >= 14.0), "{placed:?}");
        }
    }
}
