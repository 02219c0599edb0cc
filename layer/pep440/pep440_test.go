package pep440_test

import (
	"bufio"
	"cmp"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/imgwrap/imgwrap/layer/pep440"
)

// probes are what testdata/generate.py appends to each bound.
var probes = []string{"", ".dev1", "a1", "a1.post1", "rc1", ".post1", ".post1.dev1",
	"+local.1", ".0", ".0.1", ".1rc1"}

func mustParse(t testing.TB, s string) pep440.Version {
	t.Helper()
	v, err := pep440.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func mustParseSpecifiers(t testing.TB, s string) pep440.Specifiers {
	t.Helper()
	specifiers, err := pep440.ParseSpecifiers(s)
	if err != nil {
		t.Fatal(err)
	}
	return specifiers
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

func TestVersionsLikePackaging(t *testing.T) {
	type row struct {
		version pep440.Version
		rank    int
	}
	var rows []row
	for _, columns := range golden(t, "versions.txt") {
		rank, err := strconv.Atoi(columns[0])
		if err != nil {
			t.Fatal(err)
		}
		v := mustParse(t, columns[2])
		if got := v.String(); got != columns[1] {
			t.Errorf("%q is normalised to %q, want %q", columns[2], got, columns[1])
		}
		rows = append(rows, row{v, rank})
	}
	for _, a := range rows {
		for _, b := range rows {
			if got, want := a.version.Compare(b.version), cmp.Compare(a.rank, b.rank); got != want {
				t.Errorf("Compare(%s, %s) = %d, want %d", a.version, b.version, got, want)
			}
		}
	}
}

func TestContainsLikePackaging(t *testing.T) {
	var versions []pep440.Version
	for _, columns := range golden(t, "versions.txt") {
		versions = append(versions, mustParse(t, columns[2]))
	}
	for _, columns := range golden(t, "contains.txt") {
		forVersions, forProbes, text := columns[0], columns[1], columns[2]
		specifiers, err := pep440.ParseSpecifiers(text)
		if invalid := forVersions == "invalid"; invalid || err != nil {
			if !invalid {
				t.Error(err)
			} else if err == nil {
				t.Errorf("ParseSpecifiers(%q) accepts what packaging refuses", text)
			}
			continue
		}

		if len(forVersions) != len(versions) {
			t.Fatalf("%q: %d answers for %d versions", text, len(forVersions), len(versions))
		}
		for i, v := range versions {
			if got, want := specifiers.Contains(v), forVersions[i] == '1'; got != want {
				t.Errorf("%q contains %s: %t, want %t", text, v, got, want)
			}
		}

		near := probesOf(text)
		if len(forProbes) != len(near) {
			t.Fatalf("%q: %d answers for %d probes", text, len(forProbes), len(near))
		}
		for i, probe := range near {
			got := byte('-')
			if v, err := pep440.Parse(probe); err == nil {
				got = '0'
				if specifiers.Contains(v) {
					got = '1'
				}
			}
			if want := forProbes[i]; got != want {
				t.Errorf("%q contains %s: %c, want %c", text, probe, got, want)
			}
		}
	}
}

func probesOf(specifiers string) []string {
	var all []string
	for part := range strings.SplitSeq(specifiers, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		bound := strings.TrimSpace(strings.TrimLeft(part, "=<>!~"))
		for _, probe := range probes {
			all = append(all, strings.TrimSuffix(bound, ".*")+probe)
		}
	}
	return all
}

func TestContains(t *testing.T) {
	for _, test := range []struct {
		specifiers, version string
		want                bool
	}{
		{"", "1.0a1", true},
		{"~=6.0.0", "6.0.9", true},
		{"~=6.0.0", "6.1.0", false},
		{"~=0.46b0", "0.47b0", true},
		{"~=1.4.5a4", "1.4.5", true},
		{"~=1.4.5a4", "1.5.dev0", false},
		{"<2.0.0", "2.0.0rc1", false},
		{"<2.0.0rc2", "2.0.0rc1", true},
		{"<3.1", "3.1.dev0", false},
		{"<5.0.0dev,>=3.20.3", "5.0.0.dev0", false},
		{"<5.0.0dev,>=3.20.3", "4.25.5", true},
		{">=0.66b0,<0.67b0", "0.66b1", true},
		{"==1.*", "1.17.4rc1", true},
		{"==3.1.*", "3.1.dev1", true},
		{"==3.1.*", "3.10", false},
		{"==1.0.*", "1", true},
		{"!=4.21.*", "4.21.12", false},
		{"!=4.21.*", "4.22", true},
		{">1.7", "1.7.post1", false},
		{">1.7", "1.7+local", false},
		{">1.7", "1.7.1", true},
		{">1.7.post2", "1.7.post3", true},
		{">1.7.post2", "1.7.post2+local", false},
		{"<=1.7", "1.7+local", true},
		{"<=8.4.0", "8.4", true},
		{"==1.7", "1.7+cu118", true},
		{"==1.7+cu118", "1.7", false},
		{"!=1.7", "1.7+cu118", false},
		{">=2.0", "1!1.0", true},
		{"==1.0", "1!1.0", false},
		{"==1.*", "1!1.0", false},
		{"==2022.06.01", "2022.6.1", true},
		{"===1.0", "1.0.0", false},
		{"===1.0", "1.0", true},
		{"===1.0RC1", "1.0rc1", true},
		{">= 1.0 , < 2 ,", "1.5", true},
	} {
		specifiers := mustParseSpecifiers(t, test.specifiers)
		if got := specifiers.Contains(mustParse(t, test.version)); got != test.want {
			t.Errorf("%q contains %s: %t, want %t", test.specifiers, test.version, got, test.want)
		}
	}
}

func TestParse(t *testing.T) {
	for _, test := range []struct {
		text, want string
		prerelease bool
	}{
		{" v1.0\n", "1.0", false},
		{"1!02.003", "1!2.3", false},
		{"0!1", "1", false},
		{"1.0-ALPHA_2", "1.0a2", true},
		{"1.0c", "1.0rc0", true},
		{"1.0-0", "1.0.post0", false},
		{"1.0.Rev.7", "1.0.post7", false},
		{"1.0post1dev", "1.0.post1.dev0", true},
		{"1.0+Ubuntu-01_b", "1.0+ubuntu.1.b", false},
	} {
		v := mustParse(t, test.text)
		if got := v.String(); got != test.want {
			t.Errorf("Parse(%q) = %q, want %q", test.text, got, test.want)
		}
		if got := v.IsPrerelease(); got != test.prerelease {
			t.Errorf("%q is a pre-release: %t, want %t", test.text, got, test.prerelease)
		}
	}
	for _, text := range []string{
		"", " ", "v", "1.", ".1", "1..2", "1.0.x", "1.0-", "1.0+", "1.0+a+b", "1.0+a..b", "1.0 a1",
		"1!", "!1", "1!2!3", "1.0a1b1", "1.0.dev1.post1", "2.0.*", "1.0-SNAPSHOT", "2013b-1-x",
		"1.0po\u017ft1", "1.0+\u212a", "\u0661.0",
	} {
		if v, err := pep440.Parse(text); err == nil {
			t.Errorf("Parse(%q) = %q, want an error", text, v)
		}
	}
}

func TestSpecifiersString(t *testing.T) {
	for text, want := range map[string]string{
		"":                 "",
		" >= 1.0 , <2,":    ">=1.0,<2",
		"!=1.5.*, ==v1.00": "!=1.5.*,==v1.00",
		"=== 1.0-custom":   "===1.0-custom",
	} {
		if got := mustParseSpecifiers(t, text).String(); got != want {
			t.Errorf("ParseSpecifiers(%q) = %q, want %q", text, got, want)
		}
	}
}

func TestSpecifierErrors(t *testing.T) {
	for text, want := range map[string]string{
		">=1.0,>=2.0.*":   `parsing specifier ">=2.0.*": .* goes with == and != only`,
		"==2.0a1.*":       `parsing specifier "==2.0a1.*": .* goes after a plain release only`,
		"==2.0 .*":        `parsing specifier "==2.0 .*": .* goes after a plain release only`,
		">=1.0+local":     `parsing specifier ">=1.0+local": a local version goes with == and != only`,
		"~=1":             `parsing specifier "~=1": ~= takes a release of two numbers or more`,
		"1.0":             `parsing specifier "1.0": no operator such as == or >= in front of the version`,
		"===a b":          `parsing specifier "===a b": === takes one word`,
		"<2,>=1.0 != 1.5": `parsing specifier ">=1.0 != 1.5": parsing version "1.0 != 1.5": not a PEP 440 version`,
	} {
		if _, err := pep440.ParseSpecifiers(text); err == nil || err.Error() != want {
			t.Errorf("ParseSpecifiers(%q): %v, want %s", text, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, columns := range golden(f, "versions.txt") {
		f.Add(columns[2], "1.0+local")
	}
	f.Add("1.0.dev1", "1.0a1")
	f.Fuzz(func(t *testing.T, a, b string) {
		v, err := pep440.Parse(a)
		if err != nil {
			return
		}
		again := mustParse(t, v.String())
		if again.String() != v.String() || again.Compare(v) != 0 {
			t.Errorf("%q is normalised to %q, and that to %q", a, v, again)
		}
		w, err := pep440.Parse(b)
		if err != nil {
			return
		}
		order := v.Compare(w)
		if order != -w.Compare(v) || order != again.Compare(w) {
			t.Errorf("%q and %q are ordered %d one way and %d the other", a, b, order, w.Compare(v))
		}
		if order != 0 && v.String() == w.String() {
			t.Errorf("%q and %q differ in order but not in spelling", a, b)
		}
	})
}

func FuzzSpecifiers(f *testing.F) {
	for i, columns := range golden(f, "contains.txt") {
		if i%20 == 0 {
			f.Add(columns[2], "1.0")
		}
	}
	f.Add("==1.0.*,!=1.0.1,~=1.0,===1.0,<2,>0,<=1.0+local,>=v1!1.0", "1.0")
	f.Fuzz(func(t *testing.T, text, version string) {
		specifiers, err := pep440.ParseSpecifiers(text)
		if err != nil {
			return
		}
		again := mustParseSpecifiers(t, specifiers.String())
		if again.String() != specifiers.String() {
			t.Errorf("%q is written %q, and that %q", text, specifiers, again)
		}
		v, err := pep440.Parse(version)
		if err != nil {
			return
		}
		got := specifiers.Contains(v)
		if again.Contains(v) != got {
			t.Errorf("%q contains %s: %t, but %q does not agree", text, v, got, again)
		}
		each := true
		for part := range strings.SplitSeq(text, ",") {
			each = each && mustParseSpecifiers(t, part).Contains(v)
		}
		if each != got {
			t.Errorf("%q contains %s: %t, but its parts say %t", text, v, got, each)
		}
	})
}

func BenchmarkContains(b *testing.B) {
	v := mustParse(b, "4.25.5")
	for b.Loop() {
		if !mustParseSpecifiers(b, ">=3.19,<5.0").Contains(v) {
			b.Fatal("not contained")
		}
	}
}
