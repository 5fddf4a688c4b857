//! A stack drawn to scale: a row for each layer, as long as the parameters of its mixer and its FFN.

use maud::{Markup, html};
use search::Architecture;
use search::architecture::Layer;
use tui::drawing::Parameters;
use tui::quantity;
use tui::theme::layer_sign;

use super::figure::{Plane, at, fill, path};
use tui::plot::Axis;

/// Rows up to which each has its words.
const ROOMY: usize = 16;
const LEFT: f64 = 24.0;
const RIGHT: f64 = 184.0;

/// Width, height and the drawing.
pub(super) fn drawing(stack: &Architecture) -> (f64, f64, Markup) {
    let layers = stack.layers();
    let sizes = Parameters::of(stack);
    let pitch = if layers.len() <= ROOMY { 19.0 } else { (304.0 / layers.len() as f64).max(6.0) };
    let thick = pitch - if pitch > 10.0 { 5.0 } else { 1.5 };
    let both = |(mixer, ffn): &(u64, u64)| mixer + ffn;
    let most = sizes
        .layers
        .iter()
        .map(both)
        .chain([sizes.embedding, sizes.head])
        .max()
        .unwrap_or(1)
        .max(1);
    let long = |parameters: u64| (RIGHT - LEFT) * parameters as f64 / most as f64;
    let first = 24.0;
    let row = |index: usize| first + 22.0 + pitch * index as f64;
    let last = row(layers.len());
    let body = html! {
        (outside("embedding", sizes.embedding, long(sizes.embedding), first))
        @for (index, (layer, (mixer, ffn))) in layers.iter().zip(&sizes.layers).enumerate() {
            @let y = row(index);
            @let kind = layer.mixer.map(|mixer| mixer.kind());
            @let is_new = index == 0 || layers[index - 1] != *layer;
            @let middle = y + thick / 2.0 + 4.0;
            @if pitch > 10.0 || is_new {
                text class="small" x=(at(LEFT - 8.0)) y=(at(middle)) text-anchor="end" { (index + 1) }
            }
            @if *mixer > 0 {
                rect x=(at(LEFT)) y=(at(y)) width=(at(long(*mixer).max(1.0))) height=(at(thick)) style=(format!("fill:{}", fill(kind))) {
                    title { (words(layer)) ", " (quantity::scaled(both(&(*mixer, *ffn)) as f64)) " parameters" }
                }
            }
            @if *ffn > 0 {
                rect x=(at(LEFT + long(*mixer) + if *mixer > 0 { 1.0 } else { 0.0 })) y=(at(y))
                    width=(at((long(*ffn) - 1.0).max(1.0))) height=(at(thick)) style=(format!("fill:{}", fill(None))) {}
            }
            @if is_new {
                @let times = layers[index..].iter().take_while(|other| *other == layer).count();
                text x=(at(RIGHT + 10.0)) y=(at(middle)) style="font-size:11px" {
                    tspan style=(format!("fill:{}", fill(kind))) { (layer_sign(layer)) }
                    " " (words(layer))
                    @if times > 1 { tspan style="font-weight:600" { " ×" (times) } }
                }
            }
        }
        (outside(if stack.tied_embeddings() { "norm, head (tied)" } else { "norm, head" }, sizes.head, long(sizes.head), last + 3.0))
        text class="small" x=(at(LEFT)) y="11" {
            "width " (stack.d_model()) ", " (layers.len()) @if layers.len() == 1 { " layer, " } @else { " layers, " }
            (quantity::scaled(sizes.total() as f64)) " parameters"
        }
    };
    (450.0, last + 24.0, body)
}

fn outside(name: &str, parameters: u64, long: f64, y: f64) -> Markup {
    html! {
        rect x=(at(LEFT)) y=(at(y)) width=(at(long.max(1.0))) height="13" style="fill:var(--head)" {}
        text class="small" x=(at(RIGHT + 10.0)) y=(at(y + 10.0)) { (name) ", " (quantity::scaled(parameters as f64)) }
    }
}

fn words(layer: &Layer) -> String {
    let mixer = layer.mixer.map(|mixer| format!("{} {}", mixer.kind().name(), mixer.brief()));
    let ffn = layer.ffn.map(|ffn| format!("{} {}", ffn.kind.word(), ffn.brief()));
    quantity::shortened(&mixer.into_iter().chain(ffn).collect::<Vec<_>>().join(" · "), 46)
}

/// Points of a curve at most.
const POINTS: usize = 160;

/// A training's loss against its tokens; none of less than two points.
pub(super) fn curve(curve: &[(u64, f64)]) -> Option<(f64, f64, Markup)> {
    let step = curve.len().div_ceil(POINTS).max(1);
    let last = curve.len().saturating_sub(1);
    let kept = curve.iter().enumerate().filter(|(i, _)| i % step == 0 || *i == last);
    let points: Vec<(f64, f64)> = kept
        .map(|(_, (tokens, loss))| (*tokens as f64, *loss))
        .filter(|(_, loss)| loss.is_finite())
        .collect();
    let (first, end) = (points.first()?, points.last()?);
    if points.len() < 2 {
        return None;
    }
    let low = points.iter().map(|p| p.1).fold(f64::INFINITY, f64::min);
    let high = points.iter().map(|p| p.1).fold(f64::NEG_INFINITY, f64::max);
    let plane = Plane {
        x: Axis::linear(first.0.min(0.0), end.0),
        y: Axis::linear(low, high),
        across: (44.0, 392.0),
        down: (30.0, 140.0),
    };
    let body = html! {
        (plane.frame("tokens", "training loss, nats per token"))
        path class="line" style="stroke:var(--front);stroke-width:1.5" d=(path(points.iter().filter_map(|p| plane.place(*p)))) {}
    };
    Some((400.0, 178.0, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_drawn_in_its_mixers_colour() {
        let stack: Architecture =
            "d=32,vocab=64,tied | 2*gdn(h=1,k=8,v=8)+ffn(64) | ffn(32)".parse().expect("valid");
        insta::assert_snapshot!(drawing(&stack).2.into_string().replace("><", ">\n<"));
    }

    #[test]
    fn a_curve_wants_two_points_and_keeps_the_last() {
        assert!(
            curve(&[]).is_none()
                && curve(&[(1, 2.0)]).is_none()
                && curve(&[(1, 2.0), (2, f64::NAN)]).is_none()
        );
        let long: Vec<(u64, f64)> = (0..1000).map(|i| (i, 1.0 / (i + 1) as f64)).collect();
        let (.., body) = curve(&long).expect("a curve");
        let body = body.into_string();
        assert!(body.matches('L').count() <= POINTS + 1, "{body}");
    }
}
