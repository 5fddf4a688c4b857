//! What stays the same from one drawing of a plot to the next.

use std::cell::RefCell;
use std::rc::Rc;

use db::Mark;
use db::snapshot::Snapshot;
use ratatui::layout::Rect;

use super::canvas::{Canvas, Layer};
use super::scene::Scene;

/// A plot as it was last laid out: of a campaign of a hundred thousand candidates a key that only moves the selection would
/// otherwise cost as much as the first drawing.
#[derive(Debug, Clone, Default)]
pub struct Plotted(RefCell<Option<Kept>>);

#[derive(Debug, Clone)]
struct Kept {
    /// Whose candidates: where they lie, how many, and the revision of their campaign.
    of: (usize, usize, i64),
    scene: Option<Rc<Scene>>,
    layer: Option<(Rect, Rc<Layer>)>,
}

/// It follows from what is drawn.
impl PartialEq for Plotted {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Plotted {
    /// What is shown of a snapshot; none: nothing yet.
    pub(super) fn scene(&self, snapshot: &Snapshot, marks: Option<&[Mark]>) -> Option<Rc<Scene>> {
        let candidates = &snapshot.candidates;
        let of = (candidates.as_ptr() as usize, candidates.len(), snapshot.revision);
        let mut kept = self.0.borrow_mut();
        if let Some(same) = kept.as_ref().filter(|kept| kept.of == of) {
            return same.scene.clone();
        }
        let scene = Scene::of(snapshot, marks).map(Rc::new);
        *kept = Some(Kept { of, scene: scene.clone(), layer: None });
        scene
    }

    /// The lowest layer of a canvas of that scene.
    pub(super) fn layer(&self, canvas: &Canvas<'_>) -> Rc<Layer> {
        let mut kept = self.0.borrow_mut();
        if let Some((area, layer)) = kept.as_ref().and_then(|kept| kept.layer.as_ref())
            && *area == canvas.inside()
        {
            return Rc::clone(layer);
        }
        let layer = Rc::new(canvas.layer());
        if let Some(kept) = kept.as_mut() {
            kept.layer = Some((canvas.inside(), Rc::clone(&layer)));
        }
        layer
    }
}
