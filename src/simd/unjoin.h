/* unjoin.h: the end of a template: R and what join.h defined. */
#undef R_
#undef JOIN
#undef JOIN_
#undef R
