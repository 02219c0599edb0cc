package pep508_test

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/imgwrap/imgwrap/layer/pep508"
)

func mustParse(t testing.TB, s string) pep508.Requirement {
	t.Helper()
	r, err := pep508.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// golden returns the columns of the lines of a file of testdata.
func golden(t testing.TB, name string) [][]string {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var rows [][]string
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if line := sc.Text(); !strings.HasPrefix(line, "#") {
			rows = append(rows, strings.Split(line, "\t"))
		}
	}
	if len(rows) == 0 {
		t.Fatalf("%s is empty", name)
	}
	return rows
}

func TestRequirementsLikePackaging(t *testing.T) {
	for _, columns := range golden(t, "requirements.txt") {
		text := columns[5]
		r, err := pep508.Parse(text)
		if invalid := columns[0] == "invalid"; invalid || err != nil {
			if !invalid {
				t.Error(err)
			} else if err == nil {
				t.Errorf("Parse(%q) accepts what packaging refuses", text)
			}
			continue
		}
		slices.Sort(r.Extras)
		specifiers := strings.Split(r.Specifiers.String(), ",")
		slices.Sort(specifiers)
		marker := ""
		if r.Marker.String() != "" {
			marker = "marker"
		}
		got := []string{r.Name, strings.Join(r.Extras, ","), strings.Join(specifiers, ","), r.URL, marker}
		if want := columns[:5]; !slices.Equal(got, want) {
			t.Errorf("Parse(%q) = %q, want %q", text, got, want)
		}
	}
}

func TestMarkersLikePackaging(t *testing.T) {
	extraOf := regexp.MustCompile(`extra\s*==\s*['"]([^'"]+)`)
	for _, columns := range golden(t, "markers.txt") {
		want, text := columns[0], columns[1]
		r, err := pep508.Parse("x; " + text)
		if invalid := want == "invalid"; invalid || err != nil {
			if !invalid {
				t.Error(err)
			} else if err == nil {
				t.Errorf("Parse accepts the marker %q, which packaging refuses", text)
			}
			continue
		}
		extra := "test"
		if m := extraOf.FindStringSubmatch(text); m != nil {
			extra = m[1]
		}
		var got strings.Builder
		for minor := 7; minor <= 14; minor++ {
			for _, machine := range []string{"x86_64", "aarch64"} {
				env := pep508.Linux(fmt.Sprintf("3.%d.2", minor), machine)
				for _, applies := range []bool{r.Applies(env), r.Applies(env, extra)} {
					if applies {
						got.WriteByte('1')
					} else {
						got.WriteByte('0')
					}
				}
			}
		}
		if got.String() != want {
			t.Errorf("marker %q:\n got %s\nwant %s", text, &got, want)
		}
	}
}

func TestParse(t *testing.T) {
	r := mustParse(t, " Foo.Bar[socks, Async_IO] ( >= 1.0, <2 ) ; python_version < '3.9' ")
	if r.Name != "Foo.Bar" || !slices.Equal(r.Extras, []string{"socks", "Async_IO"}) ||
		r.Specifiers.String() != ">=1.0,<2" || r.URL != "" || r.Marker.String() != "python_version < '3.9'" {
		t.Errorf("got %+v", r)
	}
	r = mustParse(t, "foo @ https://example.com/foo.whl;v=1 ; os_name == 'nt'")
	if r.Name != "foo" || r.URL != "https://example.com/foo.whl;v=1" || r.Marker.String() != "os_name == 'nt'" {
		t.Errorf("got %+v", r)
	}
}

func TestParseErrors(t *testing.T) {
	deep := strings.Repeat("(", 1000)
	for text, want := range map[string]string{
		"":                             `expected a name at the end`,
		">=1.0":                        `expected a name at ">=1.0"`,
		"foo bar":                      `parsing specifier "bar": no operator such as == or >= in front of the version`,
		"foo >=2.0.*":                  `parsing specifier ">=2.0.*": .* goes with == and != only`,
		"foo (>=1.0":                   `expected ) after the specifiers`,
		"foo (>=1) bar":                `expected the end at "bar"`,
		"foo >=1,,<2":                  `expected a specifier before the comma`,
		"foo[bar":                      `expected ] after the extras at the end`,
		"foo[bar,]":                    `expected the name of an extra at "]"`,
		"foo @ ":                       `expected a URL after @`,
		"foo ; ":                       `expected a marker variable or a quoted string at the end`,
		"foo; extras == 'a'":           `expected a marker variable or a quoted string at "extras == 'a'"`,
		"foo; os_name is 'nt'":         `expected an operator such as == or in at "is 'nt'"`,
		"foo; os_name == 'nt":          `expected ' after nt at the end`,
		`foo; os_name == 'n\t'`:        `expected ' after n at "\\t'"`,
		"foo; (os_name == 'nt'":        `expected ) at the end`,
		"foo; 'a' == 'b'":              `expected a marker to compare a variable with a quoted string`,
		"foo; os_name == sys_platform": `expected a marker to compare a variable with a quoted string`,
		"foo; os_name ~= 'nt'":         `comparing os_name by ~=: not a version`,
		"foo; python_version ~= 'x.y'": `parsing specifier "~=x.y": parsing version "x.y": not a PEP 440 version`,
		"foo; " + deep:                 `too many parentheses`,
	} {
		want = fmt.Sprintf("parsing requirement %q: %s", text, want)
		if _, err := pep508.Parse(text); err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

func TestApplies(t *testing.T) {
	env := pep508.Linux("3.11", "x86_64")
	checkout := env
	checkout.PythonFullVersion = "3.11.0+"
	kernel := env
	kernel.PlatformRelease = "6.1.0-18-amd64"
	plain := env
	plain.PlatformRelease = "6.1.0"
	for _, test := range []struct {
		requirement string
		env         pep508.Environment
		extras      []string
		want        bool
	}{
		{"foo", env, nil, true},
		{"foo", env, []string{"socks"}, true},
		{"foo; extra == 'Socks.Proxy'", env, nil, false},
		{"foo; extra == 'Socks.Proxy'", env, []string{"test", "socks_proxy"}, true},
		{"foo; extra == 'a' and extra == 'b'", env, []string{"a", "b"}, false},
		{"foo; python_full_version == '3.11.0'", env, nil, true},
		{"foo; python_full_version > '3.11.0rc1'", checkout, nil, true},
		{"foo; python_full_version == '3.11.0'", checkout, nil, true},
		{"foo; platform_release >= '4.0'", kernel, nil, false}, // not a PEP 440 version
		{"foo; platform_release >= '4.0'", plain, nil, true},
		{"foo; platform_release === '6.1.0-18-AMD64'", kernel, nil, true},
		{"foo; 'amd64' in platform_release", kernel, nil, true},
		{"foo; 'three' ~= python_version", env, nil, false},
	} {
		if got := mustParse(t, test.requirement).Applies(test.env, test.extras...); got != test.want {
			t.Errorf("%q applies with extras %q: %t, want %t", test.requirement, test.extras, got, test.want)
		}
	}
}

func TestLinux(t *testing.T) {
	for _, test := range []struct{ version, short, full string }{
		{"3.11", "3.11", "3.11.0"},
		{"3.11.2", "3.11", "3.11.2"},
		{"3.14.0rc1", "3.14", "3.14.0rc1"},
		{"3", "3.0", "3.0.0"},
	} {
		env := pep508.Linux(test.version, "aarch64")
		if env.PythonVersion != test.short || env.PythonFullVersion != test.full || env.ImplementationVersion != test.full {
			t.Errorf("Linux(%q) = %+v", test.version, env)
		}
	}
}

func TestNormalize(t *testing.T) {
	for name, want := range map[string]string{
		"":                    "",
		"Django":              "django",
		"zope.interface":      "zope-interface",
		"Foo-_.Bar__baz":      "foo-bar-baz",
		"ruamel.yaml.clib_":   "ruamel-yaml-clib-",
		"opentelemetry-proto": "opentelemetry-proto",
	} {
		if got := pep508.Normalize(name); got != want {
			t.Errorf("Normalize(%q) = %q, want %q", name, got, want)
		}
	}
}

func FuzzRequirement(f *testing.F) {
	for i, columns := range golden(f, "requirements.txt") {
		if i%10 == 0 {
			f.Add(columns[5])
		}
	}
	for i, columns := range golden(f, "markers.txt") {
		if i%10 == 0 {
			f.Add("x; " + columns[1])
		}
	}
	env := pep508.Linux("3.11", "x86_64")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := pep508.Parse(text)
		if err != nil {
			return
		}
		name := pep508.Normalize(r.Name)
		if name == "" || pep508.Normalize(name) != name {
			t.Errorf("%q: the name %q is normalised to %q", text, r.Name, name)
		}

		// What was read says the same when written out again.
		written := r.Name + "[" + strings.Join(r.Extras, ",") + "]"
		if r.URL != "" {
			written += " @ " + r.URL + " "
		} else {
			written += r.Specifiers.String()
		}
		if r.Marker.String() != "" {
			written += ";" + r.Marker.String()
		}
		again := mustParse(t, written)
		if again.Name != r.Name || !slices.Equal(again.Extras, r.Extras) || again.URL != r.URL ||
			again.Specifiers.String() != r.Specifiers.String() || again.Marker.String() != r.Marker.String() {
			t.Errorf("%q is written %q, which reads as %+v", text, written, again)
		}
		if r.Applies(env, "test") != again.Applies(env, "test") {
			t.Errorf("%q and %q do not apply alike", text, written)
		}
	})
}
