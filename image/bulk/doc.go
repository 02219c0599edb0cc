// Package bulk reads lists of images, selects tags and repositories for them, and
// divides them among workers that know nothing of each other. It does no I/O.
package bulk
