//! Which mixers stand where in the stacks: on the front, and among everything that was trained.

use maud::{Markup, html};
use search::Architecture;
use search::architecture::MixerKind;
use tui::theme::{FFN_SIGN, mixer_sign};

use super::figure::{Figure, at, fill};

/// Places along the depth, from the embedding to the head.
const PLACES: usize = 12;

/// The share of each mixer at each place; the last is of layers without one.
type Use = Vec<[f64; MixerKind::ALL.len() + 1]>;

fn shares<'a>(stacks: impl Iterator<Item = &'a Architecture>) -> (Use, usize) {
    let mut shares: Use = vec![[0.0; MixerKind::ALL.len() + 1]; PLACES];
    let mut count = 0;
    for stack in stacks {
        let layers = stack.layers();
        count += 1;
        for (place, share) in shares.iter_mut().enumerate() {
            // The layer at the middle of the place.
            let layer = (2 * place + 1) * layers.len() / (2 * PLACES);
            let kind = layers.get(layer).and_then(|layer| layer.mixer).map(|mixer| mixer.kind());
            let column = MixerKind::ALL.iter().position(|other| Some(*other) == kind);
            share[column.unwrap_or(MixerKind::ALL.len())] += 1.0;
        }
    }
    for share in shares.iter_mut().flatten() {
        *share /= f64::from(count.max(1) as u32);
    }
    (shares, count)
}

/// None where no stack is on a front.
pub(super) fn figure<'a>(
    front: impl Iterator<Item = &'a Architecture>,
    all: impl Iterator<Item = &'a Architecture>,
) -> Option<Figure> {
    let panels = [("on the front", shares(front)), ("all that were trained", shares(all))];
    if panels[0].1.1 == 0 {
        return None;
    }
    let is_used = |column: &usize| {
        panels.iter().any(|(_, (shares, _))| shares.iter().any(|s| s[*column] > 0.0))
    };
    let used: Vec<usize> = (0..=MixerKind::ALL.len()).filter(is_used).collect();
    let kind = |column: usize| MixerKind::ALL.get(column).copied();
    let rows = used.len().div_ceil(3);
    let top = 34.0;
    let bottom = top + 170.0;
    let body = html! {
        @for (panel, (title, (shares, count))) in panels.iter().enumerate() {
            @let left = 52.0 + panel as f64 * 404.0;
            (axes(left, top, bottom, &format!("{title}, {count}")))
            @for (place, share) in shares.iter().enumerate() {
                @for (column, y) in stacked(&used, share, bottom, bottom - top) {
                    @let height = share[column] * (bottom - top);
                    @if height > 0.05 {
                        rect x=(at(left + place as f64 * 30.0 + 0.75)) y=(at(y)) width="28.5" height=(at(height))
                            style=(format!("fill:{}", fill(kind(column)))) {
                            title { (name(kind(column))) ": " (format!("{:.0} %", 100.0 * share[column])) }
                        }
                    }
                }
            }
        }
        @for (index, &column) in used.iter().enumerate() {
            @let x = 52.0 + (index % 3) as f64 * 262.0;
            @let y = bottom + 58.0 + (index / 3) as f64 * 20.0;
            rect x=(at(x)) y=(at(y - 9.0)) width="11" height="11" rx="2" style=(format!("fill:{}", fill(kind(column)))) {}
            text class="key" x=(at(x + 18.0)) y=(at(y + 1.0)) {
                (kind(column).map_or(FFN_SIGN, mixer_sign)) "\u{2002}" (name(kind(column)))
            }
        }
    };
    Some(Figure {
        name: "mixer-use".to_owned(),
        title: "Mixer use along the depth".to_owned(),
        caption: "The share of each mixer from the first layer to the last, every stack stretched to the same length."
            .to_owned(),
        size: (840.0, bottom + 58.0 + rows as f64 * 20.0),
        body,
    })
}

/// Where the bar of each column begins, one above the other.
fn stacked(used: &[usize], share: &[f64], bottom: f64, height: f64) -> Vec<(usize, f64)> {
    let bars = used.iter().scan(bottom, |y, &column| {
        *y -= share[column] * height;
        Some((column, *y))
    });
    bars.collect()
}

fn name(kind: Option<MixerKind>) -> &'static str {
    kind.map_or("feed-forward network alone", MixerKind::title)
}

fn axes(left: f64, top: f64, bottom: f64, title: &str) -> Markup {
    html! {
        text class="name" x=(at(left)) y=(at(top - 12.0)) { (title) }
        @for (share, label) in [(0.0, "0"), (0.5, "50 %"), (1.0, "100 %")] {
            @let y = bottom - share * (bottom - top);
            line class="grid" x1=(at(left - 4.0)) x2=(at(left + 360.0)) y1=(at(y)) y2=(at(y)) {}
            @if left < 100.0 { text class="tick" x=(at(left - 8.0)) y=(at(y + 4.0)) text-anchor="end" { (label) } }
        }
        text class="tick" x=(at(left)) y=(at(bottom + 17.0)) { "first layer" }
        text class="tick" x=(at(left + 360.0)) y=(at(bottom + 17.0)) text-anchor="end" { "last layer" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_at_each_place_sum_to_one() {
        let stacks: Vec<Architecture> =
            ["d=16,vocab=9 | attn(h=2,kv=2,k=8)", "d=16,vocab=9 | ffn(8) | 2*gdn(h=1,k=8,v=8)"]
                .iter()
                .map(|text| text.parse().expect("valid"))
                .collect();
        let (shares, count) = shares(stacks.iter());
        assert_eq!(count, 2);
        assert!(shares.iter().all(|share| (share.iter().sum::<f64>() - 1.0).abs() < 1e-12));
        // The first third of the second stack is an FFN alone.
        assert!((shares[0][MixerKind::ALL.len()] - 0.5).abs() < 1e-12);
    }
}
