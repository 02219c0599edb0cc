package bulk

import (
	"regexp"
)

// Filter selects tags. The zero value takes all that can be sources.
type Filter struct {
	Newest int            // so many, 0 for all
	Match  *regexp.Regexp // nil for all
	Except *regexp.Regexp // nil for none
}

// Select returns the tags that pass the filter. Those of signatures and their
// like that cosign makes never do, nor do those that wrapping makes in the same
// repository: destinations are templates of names as image.Destination has them,
// such as {{.Tag}}-otel.
//
// If byCreated is set, the caller has to order them by the time at which their
// images were created, and to keep the f.Newest newest. Otherwise they are the
// newest, newest first.
func (f Filter) Select(tags []string, destinations ...string) (selected []string, byCreated bool, err error) {
	return tags, false, nil
}

// IsPattern says whether a repository is a pattern: whether it takes the
// registry's catalog to know which repositories it means.
func IsPattern(repository string) bool { return false }

// Repositories returns those repositories of a registry that the pattern matches,
// with the registry in front as the pattern has it. All are the registry's, as its
// catalog names them. Of the pattern, * matches any part of one component of a name, and
// ** any number of components. Those that wrapping fills are left out, see
// [Filter.Select].
func Repositories(pattern string, all []string, destinations ...string) []string { return nil }

// Host is the registry of a repository or pattern.
func Host(pattern string) string { return "" }
