//! The program itself: holders that are killed and stopped, what it prints, and what it
//! refuses.
