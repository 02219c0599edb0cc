package bulk

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

const suffix = "{{.Tag}}-otel"

func TestSelect(t *testing.T) {
	signed := "sha256-" + strings.Repeat("0123456789abcdef", 4)
	for _, tt := range []struct {
		name      string
		semver    string
		newest    int
		match     string
		except    string
		tags      string
		to        []string // suffix, if empty
		want      string
		byCreated bool
	}{
		{name: "all", tags: "1.0 latest 0.9", want: "1.0 latest 0.9"},
		{name: "none", tags: "", want: ""},
		{name: "twice", tags: "1.0 1.0", want: "1.0"},
		{name: "of cosign", tags: "1.0 " + signed + ".sig " + signed + ".att " + signed + ".sbom " + signed, want: "1.0"},
		{name: "like those of cosign", tags: "sha256-123 " + signed[:20] + ".sig", want: "sha256-123 " + signed[:20] + ".sig"},
		{name: "wrapped", tags: "1.0 1.0-otel 0.9-otel otel -otel", want: "1.0 otel -otel"},
		{name: "wrapped, another suffix", tags: "1.0 1.0-traced 1.0-otel", to: []string{"{{ .Tag }}-traced"}, want: "1.0 1.0-otel"},
		{name: "wrapped, a prefix", tags: "1.0 traced-1.0", to: []string{`{{printf "traced-%s" .Tag}}`}, want: "1.0"},
		{name: "wrapped, a fixed tag", tags: "1.0 traced", to: []string{"traced"}, want: "1.0"},
		{name: "wrapped, in the same repository", tags: "1.0 1.0-a", to: []string{"{{.Repository}}:{{.Tag}}-a"}, want: "1.0"},
		{name: "wrapped, in another repository", tags: "1.0 1.0-otel", to: []string{"{{.Repository}}-otel:{{.Tag}}"}, want: "1.0 1.0-otel"},
		{name: "wrapped, part of a tag", tags: "v1.0 1.0-a", to: []string{"{{slice .Tag 1}}-a"}, want: "v1.0"},
		{name: "wrapped, part of a digest", tags: "1.0 at-0123456789ab", to: []string{"at-{{slice .Digest 7 19}}"}, want: "1.0"},
		{name: "wrapped, several ways", tags: "1.0 1.0-otel 1.0-traced", to: []string{suffix, "{{.Tag}}-traced"}, want: "1.0"},
		{name: "in place", tags: "1.0 1.0-a", to: []string{""}, want: "1.0 1.0-a"},

		{name: "match", match: "^v", tags: "v1 1 dev", want: "v1"},
		{name: "except", except: "-rc", tags: "1.0 1.0-rc1 1.0-rc2", want: "1.0"},
		{name: "both", match: "^1", except: "-rc", tags: "1.0 1.0-rc1 2.0", want: "1.0"},

		{name: "semver", semver: ">=1.2 <2", tags: "1.1 1.2 1.10.3 2.0.0 latest 1.2.1", want: "1.10.3 1.2.1 1.2"},
		{name: "semver with a comma", semver: ">=1.2, <2", tags: "1.1 1.2 1.10.3 2.0.0", want: "1.10.3 1.2"},
		{name: "one of two", semver: "~1.2 || ^3", tags: "1.2.9 1.3.0 3.4 4", want: "3.4 1.2.9"},
		{name: "x", semver: "1.x", tags: "1.2 2.0 v1.9.9", want: "v1.9.9 1.2"},
		{name: "leading v", semver: ">=v1.2", tags: "v1.1 v1.2 1.3", want: "1.3 v1.2"},
		{name: "pre-releases do not pass", semver: ">=1.2", tags: "1.3.0-rc.1 1.3.0 3.11-slim", want: "1.3.0"},
		{name: "pre-releases pass", semver: ">=1.2-0", tags: "1.3.0-rc.1 1.3.0 1.3.0-rc.10 1.3.0-rc.2", want: "1.3.0 1.3.0-rc.10 1.3.0-rc.2 1.3.0-rc.1"},
		{name: "wrapped ones are no pre-releases", semver: ">=1.2-0", tags: "1.3.0 1.3.0-otel", want: "1.3.0"},
		{name: "the same version", semver: "*", tags: "v1.2 1.2.0 1.2", want: "1.2 1.2.0 v1.2"},

		{name: "newest versions", newest: 2, tags: "1.9 1.10 v1.11 1.8", want: "v1.11 1.10"},
		{name: "newest of a range", semver: "<2", newest: 2, tags: "1.9 1.10 latest 2.0 1.8", want: "1.10 1.9"},
		{name: "newest that match", newest: 1, match: "^v", tags: "v1 v2 3 latest", want: "v2"},
		{name: "newest by time", newest: 2, tags: "main dev 1.0", want: "main dev 1.0", byCreated: true},
		{name: "few enough", newest: 3, tags: "main dev 1.0", want: "main dev 1.0"},
		{name: "few enough versions", newest: 3, tags: "1.0 1.1", want: "1.1 1.0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := Filter{Newest: tt.newest}
			var err error
			if tt.semver != "" {
				if f.Semver, err = constraints(tt.semver); err != nil {
					t.Fatal(err)
				}
			}
			if tt.match != "" {
				f.Match = regexp.MustCompile(tt.match)
			}
			if tt.except != "" {
				f.Except = regexp.MustCompile(tt.except)
			}
			if tt.to == nil {
				tt.to = []string{suffix}
			}
			got, byCreated, err := f.Select(strings.Fields(tt.tags), tt.to...)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Join(got, " ") != tt.want || byCreated != tt.byCreated {
				t.Errorf("got %q, by created %t", got, byCreated)
			}
		})
	}
	for _, to := range []string{"{{.Tag", "{{.Name}}", "{{slice .Tag 1000}}"} {
		if _, _, err := (Filter{}).Select(nil, to); err == nil || !strings.Contains(err.Error(), to) {
			t.Errorf("destination %s: %v", to, err)
		}
	}
}

func TestRepositories(t *testing.T) {
	all := []string{"team/web", "team/cart", "team/cart-otel", "team/db/admin", "team", "other/cart", "teams/x", "team/web", "cart"}
	for _, tt := range []struct {
		pattern string
		to      string
		want    string
	}{
		{"registry.example.com/team/*", suffix, "registry.example.com/team/cart registry.example.com/team/cart-otel registry.example.com/team/web"},
		{"localhost/team/*", "{{.Repository}}-otel:{{.Tag}}", "localhost/team/cart localhost/team/web"},
		{"localhost:5000/team/*", "localhost:5000/team/web:{{.Tag}}-otel", "localhost:5000/team/cart localhost:5000/team/cart-otel"},
		{"localhost/team/**", suffix, "localhost/team/cart localhost/team/cart-otel localhost/team/db/admin localhost/team/web"},
		{"localhost/**", suffix, "localhost/cart localhost/other/cart localhost/team localhost/team/cart localhost/team/cart-otel localhost/team/db/admin localhost/team/web localhost/teams/x"},
		{"localhost/**/cart", suffix, "localhost/cart localhost/other/cart localhost/team/cart"},
		{"localhost/team/**/admin", suffix, "localhost/team/db/admin"},
		{"localhost/**/**/admin", suffix, "localhost/team/db/admin"},
		{"localhost/*", suffix, "localhost/cart localhost/team"},
		{"localhost/team/c*t", suffix, "localhost/team/cart"},
		{"localhost/t*/c*-*", suffix, "localhost/team/cart-otel"},
		{"localhost/none/*", suffix, ""},
		{"team/*", "{{.Tag", "team/cart team/cart-otel team/web"},
		{"localhost/team/cart-otel", "{{.Repository}}-otel:{{.Tag}}", "localhost/team/cart-otel"},
		{"localhost/elsewhere", suffix, "localhost/elsewhere"},
	} {
		if got := strings.Join(Repositories(tt.pattern, slices.Clone(all), tt.to), " "); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.pattern, got, tt.want)
		}
	}
}

func TestHost(t *testing.T) {
	for repository, want := range map[string]string{
		"registry.example.com/team/*": "registry.example.com",
		"localhost:5000/app":          "localhost:5000",
		"registry:5000/app":           "registry:5000",
		"localhost/app":               "localhost",
		"team/*":                      "index.docker.io",
		"app":                         "index.docker.io",
	} {
		if got := Host(repository); got != want {
			t.Errorf("%s: got %s, want %s", repository, got, want)
		}
	}
}
