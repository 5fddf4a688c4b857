//! What may be the name of something that people read: a campaign, a parameter, an objective.

/// Whether it is one: 1 to 100 bytes of one line, nothing that moves a terminal's cursor.
pub fn is_name(name: &str) -> bool {
    !name.trim().is_empty() && name.len() <= 100 && !name.chars().any(char::is_control)
}
