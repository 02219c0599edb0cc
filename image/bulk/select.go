package bulk

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"text/template"

	"github.com/Masterminds/semver/v3"
)

// Filter selects tags. The zero value takes all that can be sources.
type Filter struct {
	// Semver bounds versions, as Flux, Argo CD Image Updater and Kargo understand
	// it: pre-releases pass only if a bound has one. A tag that is no version does not
	// pass; a leading v and missing numbers, 1.4 for 1.4.0, do not matter.
	Semver *semver.Constraints
	Newest int            // so many, 0 for all
	Match  *regexp.Regexp // nil for all
	Except *regexp.Regexp // nil for none
}

// signature is a tag of what is about an image: those of cosign, and those of
// registries without an API for referrers.
var signature = regexp.MustCompile(`^sha(256-[0-9a-f]{64}|512-[0-9a-f]{128})(\..+)?$`)

// Select returns the tags that pass the filter. Those that cosign makes never do,
// nor do those that wrapping makes: destinations are where wrapped images go, as
// image.Destination has it, such as {{.Tag}}-otel. An error is about one of them.
//
// If byCreated is set, the caller has to order what is selected by the time at
// which the images were created, and to keep the f.Newest newest. Otherwise it is
// what was asked for: versions newest first, if the filter is about versions,
// else in the order of tags.
func (f Filter) Select(tags []string, destinations ...string) (selected []string, byCreated bool, err error) {
	var made []*regexp.Regexp
	for _, d := range destinations {
		to, err := parseDestination(d)
		if err != nil {
			return nil, false, err
		}
		if to.repository == nil {
			made = append(made, to.tag)
		}
	}
	type candidate struct {
		tag     string
		version *semver.Version
	}
	var candidates []candidate
	versions := true
	seen := map[string]bool{}
	for _, tag := range tags {
		if seen[tag] || signature.MatchString(tag) || matchesAny(made, tag) {
			continue
		}
		seen[tag] = true
		if f.Match != nil && !f.Match.MatchString(tag) || f.Except != nil && f.Except.MatchString(tag) {
			continue
		}
		version, err := semver.NewVersion(tag)
		if f.Semver != nil && (err != nil || !f.Semver.Check(version)) {
			continue
		}
		versions = versions && err == nil
		candidates = append(candidates, candidate{tag, version})
	}
	tooMany := f.Newest > 0 && len(candidates) > f.Newest
	if versions && (f.Semver != nil || f.Newest > 0) {
		slices.SortFunc(candidates, func(a, b candidate) int {
			return cmp.Or(b.version.Compare(a.version), cmp.Compare(a.tag, b.tag))
		})
		if tooMany {
			candidates = candidates[:f.Newest]
		}
	}
	for _, c := range candidates {
		selected = append(selected, c.tag)
	}
	return selected, tooMany && !versions, nil
}

// Repositories returns those repositories that a pattern matches, sorted, as the
// pattern has them: with the registry in front. All are the registry's, as its
// catalog names them. Of the pattern, * matches any part of one component of a
// name, and ** any number of components. Repositories that wrapping fills are left
// out, see [Filter.Select].
//
// A repository that is no pattern is returned as it is.
func Repositories(pattern string, all []string, destinations ...string) []string {
	if !IsPattern(pattern) {
		return []string{pattern}
	}
	var made []*regexp.Regexp
	for _, d := range destinations {
		if to, err := parseDestination(d); err == nil && to.repository != nil {
			made = append(made, to.repository)
		}
	}
	_, name := cut(pattern)
	host := strings.TrimSuffix(pattern, name)
	matcher := glob(name)
	var matched []string
	for _, r := range all {
		if matcher.MatchString(r) && !matchesAny(made, r) && !matchesAny(made, host+r) {
			matched = append(matched, host+r)
		}
	}
	slices.Sort(matched)
	return slices.Compact(matched)
}

// IsPattern says whether a repository is a pattern, for which one has to know the
// registry's catalog.
func IsPattern(repository string) bool { return strings.Contains(repository, "*") }

// dockerHub is the registry of names without one.
const dockerHub = "index.docker.io"

// Host is the registry of a repository or pattern, host[:port].
func Host(repository string) string {
	host, _ := cut(repository)
	return cmp.Or(host, dockerHub)
}

// cut separates the registry from a repository's name, by the rule of Docker's
// references.
func cut(repository string) (host, name string) {
	host, name, ok := strings.Cut(repository, "/")
	if !ok || !strings.ContainsAny(host, ".:") && host != "localhost" {
		return "", repository
	}
	return host, name
}

// glob matches as [Repositories] says.
func glob(pattern string) *regexp.Regexp {
	components := strings.Split(pattern, "/")
	var b strings.Builder
	slash := ""
	for i, c := range components {
		switch {
		case c != "**":
			parts := strings.Split(c, "*")
			for i := range parts {
				parts[i] = regexp.QuoteMeta(parts[i])
			}
			b.WriteString(slash + strings.Join(parts, "[^/]*"))
		case i == len(components)-1:
			b.WriteString(slash + "[^/]+(/[^/]+)*")
		case slash == "":
			b.WriteString("([^/]+/)*")
			continue
		default:
			b.WriteString("(/[^/]+)*")
		}
		slash = "/"
	}
	return regexp.MustCompile("^" + b.String() + "$")
}

// destination is what names have to match that wrapping makes.
type destination struct {
	repository *regexp.Regexp // nil for that of the source
	tag        *regexp.Regexp
}

// What stands in a template's result for what is in a name, each so often as a
// name may be long, as templates may cut it.
var placeholders = struct{ Repository, Tag, Digest string }{
	Repository: strings.Repeat("\x01", 64),
	Tag:        strings.Repeat("\x02", 64),
	Digest:     "sha256:" + strings.Repeat("\x03", 64),
}

var placeholder = regexp.MustCompile("\x01+|\x02+|\x03+")

// parseDestination turns a destination into what it makes of any source.
func parseDestination(text string) (destination, error) {
	t, err := template.New("tag").Option("missingkey=error").Parse(text)
	var b strings.Builder
	if err == nil {
		err = t.Execute(&b, placeholders)
	}
	if err != nil {
		return destination{}, fmt.Errorf("destination template %q: %w", text, err)
	}
	to := strings.TrimPrefix(b.String(), placeholders.Repository+":")
	if !strings.ContainsAny(to, ":/") && !strings.Contains(to, "\x01") {
		return destination{tag: names(to)}, nil
	}
	i := strings.LastIndex(to, ":")
	if i < strings.LastIndex(to, "/") || i < 0 {
		i = len(to)
	}
	return destination{repository: names(to[:i]), tag: names(strings.TrimPrefix(to[i:], ":"))}, nil
}

// names are those that the result of a template stands for.
func names(result string) *regexp.Regexp {
	var b strings.Builder
	last := 0
	for _, m := range placeholder.FindAllStringIndex(result, -1) {
		b.WriteString(regexp.QuoteMeta(result[last:m[0]]) + ".+")
		last = m[1]
	}
	return regexp.MustCompile("^" + b.String() + regexp.QuoteMeta(result[last:]) + "$")
}

func matchesAny(expressions []*regexp.Regexp, s string) bool {
	return slices.ContainsFunc(expressions, func(re *regexp.Regexp) bool { return re.MatchString(s) })
}
