//! A front that grows point by point, and answers at once what it dominates.

use super::Objectives;
use super::sorting::lexicographic;

/// The points that none of those seen so far dominates, each once.
///
/// Of one or two objectives the members stand in lexicographic order, in which the second values fall: whether a point is
/// dominated is told by its neighbour alone, so that a campaign of a hundred thousand points is read in one go. Of more
/// each member is asked.
#[derive(Debug, Clone, Default)]
pub struct Frontier {
    members: Vec<Objectives>,
}

impl Frontier {
    /// The members; of one or two objectives by rising values of the first.
    pub fn members(&self) -> &[Objectives] {
        &self.members
    }

    /// Whether a member dominates the point.
    pub fn dominates(&self, point: &Objectives) -> bool {
        if point.is_in_a_plane() {
            self.neighbour(point).is_some_and(|member| member.dominates(point))
        } else {
            self.members.iter().any(|member| member.dominates(point))
        }
    }

    /// Takes a point; false when a member equals or dominates it, and nothing changes.
    pub fn insert(&mut self, point: &Objectives) -> bool {
        if !point.is_in_a_plane() {
            if self.members.iter().any(|member| member == point || member.dominates(point)) {
                return false;
            }
            self.members.retain(|member| !point.dominates(member));
            self.members.push(point.clone());
            return true;
        }
        if self.neighbour(point).is_some_and(|member| member == point || member.dominates(point)) {
            return false;
        }
        // Those that it dominates stand in a row: from its first value on, down to its second.
        let first = point.values().first();
        let start = self.members.partition_point(|member| member.values().first() < first);
        let count =
            self.members[start..].iter().take_while(|member| point.dominates(member)).count();
        self.members.splice(start..start + count, [point.clone()]);
        true
    }

    /// The last member that does not stand behind the point: of those, the one of the least second value.
    fn neighbour(&self, point: &Objectives) -> Option<&Objectives> {
        let behind = self.members.partition_point(|member| lexicographic(member, point).is_le());
        self.members[..behind].last()
    }
}
