//! claim → read facts → step → commit → perform effects.
mod decide;
