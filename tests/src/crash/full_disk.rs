//! A disk that is full: publishers wait or are refused, consumers go on and make room, and the broker goes on by itself.
