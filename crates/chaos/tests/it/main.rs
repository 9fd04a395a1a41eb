//! The rig at work: fixed schedules, every point between two steps, a topic that is created anew.

mod points;
mod recreation;
mod schedules;
