package promote

import (
	"bytes"
	"crypto/sha256"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "write what is found and edited to the golden files")

const launcher = "opentelemetry-instrument"

// wrapped is what the image of a use becomes in these tests: those of the shop
// are wrapped.
func wrapped(u *Use) Reference {
	if !strings.Contains(u.Image.Name, "/shop/") || strings.HasSuffix(u.Image.Tag, "-otel") {
		return Reference{}
	}
	r := u.Image
	if r.Tag != "" {
		r.Tag += "-otel"
	}
	r.Digest = fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(u.Image.Name+u.Image.Tag)))
	return r
}

// decide is what a use case does: uses without a problem are wrapped, commands
// of containers that the shop's images run in get the launcher.
func decide(f *File) (changes []Change) {
	for _, u := range f.Uses {
		c := Change{Use: u, Image: wrapped(u)}
		if u.Problem != "" {
			c.Image = Reference{}
		}
		if c.Image != (Reference{}) || strings.HasPrefix(u.Image.Name, "shop-") || u.Image.Name == "" && u.Problem == "" {
			c.Launcher = launcher
		}
		changes = append(changes, c)
	}
	return changes
}

func fields(t *testing.T, paths ...string) (fields []Field) {
	t.Helper()
	for _, path := range paths {
		f, err := ParseField(path)
		if err != nil {
			t.Fatal(err)
		}
		fields = append(fields, f)
	}
	return fields
}

func describe(f *File) string {
	var b strings.Builder
	for _, u := range f.Uses {
		fmt.Fprintf(&b, "%d:%d %s (%s", u.Document, u.Line, u.Path, u.Kind)
		for _, s := range []string{u.Object, u.Container, string(u.Form)} {
			if s != "" {
				b.WriteString(", " + s)
			}
		}
		fmt.Fprintf(&b, ") %s\n", u.Image)
		if u.Replaces != "" {
			fmt.Fprintf(&b, "\treplaces %s\n", u.Replaces)
		}
		if u.Problem != "" {
			fmt.Fprintf(&b, "\tproblem: %s\n", u.Problem)
		}
		if c := u.Command; c != nil {
			fmt.Fprintf(&b, "\t%s at %d, %s: %q %q\n", c.Field, c.Line, c.Path, c.Args, c.Text)
		}
		for _, v := range u.Env {
			fmt.Fprintf(&b, "\tenv at %d: %s=%s literal=%t\n", v.Line, v.Name, v.Value, v.Literal)
		}
	}
	return b.String()
}

// fsWalk calls f for every manifest.
func fsWalk(f func(name string) error) error {
	return filepath.WalkDir("testdata", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !IsYAML(path) {
			return err
		}
		return f(filepath.ToSlash(path))
	})
}

// TestManifests edits files in the styles of the tools that read them. The golden
// files beside them list the uses and the lines that change.
func TestManifests(t *testing.T) {
	var names []string
	if err := fsWalk(func(name string) error { names = append(names, name); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(names) < 30 {
		t.Fatalf("there are only %d manifests", len(names))
	}
	for _, name := range names {
		t.Run(strings.TrimPrefix(name, "testdata/"), func(t *testing.T) {
			old, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			opts := Options{Fields: fields(t, "spec.image", "spec.workers[*].runtime", `Shop:spec.parts.*["oci.image"]`)}
			got := ""
			if f, err := Parse(name, old, opts); err != nil {
				got = err.Error() + "\n"
			} else {
				got = describe(f)
				var possible []Change
				for _, c := range decide(f) {
					if _, err := f.Edit([]Change{c}); err != nil && !strings.Contains(err.Error(), "alias") {
						got += err.Error() + "\n"
					} else {
						possible = append(possible, c)
					}
				}
				edited, err := f.Edit(possible)
				if err != nil {
					t.Fatal(err)
				}
				got += string(Diff(name, old, edited))
				checkOnly(t, f, old, edited, possible)
				checkAgain(t, name, edited, opts, possible)
			}
			golden := name + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// checkOnly compares what a YAML reader makes of the two texts: images, the
// commands that get a launcher, and nothing else may differ. It knows nothing of
// places and splices.
func checkOnly(t *testing.T, f *File, old, edited []byte, changes []Change) {
	t.Helper()
	if bytes.Equal(old, edited) {
		return
	}
	allowed := map[string]bool{}
	for _, c := range changes {
		r := c.Image
		for _, v := range []string{r.String(), r.Tag, r.Digest, strings.TrimPrefix(r.Digest, "sha256:"), r.Tag + "@" + r.Digest} {
			allowed[v] = true
		}
		if c.Use.Replaces != "" {
			allowed[c.Use.Replaces+"="+r.String()] = true
		}
	}
	delete(allowed, "")
	was, is := decodeAll(t, old), decodeAll(t, edited)
	if len(was) != len(is) {
		t.Fatalf("%d documents became %d", len(was), len(is))
	}
	for i := range was {
		compare(t, fmt.Sprint(i+1), was[i], is[i], allowed)
	}
}

func decodeAll(t *testing.T, text []byte) (docs []any) {
	t.Helper()
	for d := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var doc any
		if err := d.Decode(&doc); err != nil {
			if !strings.Contains(err.Error(), "EOF") {
				t.Fatal(err)
			}
			return docs
		}
		docs = append(docs, doc)
	}
}

func compare(t *testing.T, path string, was, is any, allowed map[string]bool) {
	t.Helper()
	switch old := was.(type) {
	case map[string]any:
		now, ok := is.(map[string]any)
		if !ok {
			t.Errorf("%s: %v became %v", path, was, is)
		}
		for _, key := range slices.Sorted(maps.Keys(now)) {
			if _, ok := old[key]; !ok && !allowed[fmt.Sprint(now[key])] {
				t.Errorf("%s: %s is new", path, key)
			}
		}
		for key, value := range old {
			compare(t, path+"."+key, value, now[key], allowed)
		}
	case []any:
		now, ok := is.([]any)
		if ok && len(now) == len(old)+1 && now[0] == launcher {
			now = now[1:]
		}
		if !ok || len(now) != len(old) {
			t.Errorf("%s: %v became %v", path, was, is)
			return
		}
		for i := range old {
			compare(t, fmt.Sprintf("%s[%d]", path, i), old[i], now[i], allowed)
		}
	default:
		text, _ := is.(string)
		before, _ := was.(string)
		if was == is || allowed[text] || text == strings.TrimSpace(launcher+" "+before) {
			return
		}
		if strings.Contains(before, "\n") {
			var a, b any
			if yaml.Unmarshal([]byte(before), &a) == nil && yaml.Unmarshal([]byte(text), &b) == nil {
				compare(t, path+"|", a, b, allowed)
				return
			}
		}
		t.Errorf("%s: %v became %v", path, was, is)
	}
}

// checkAgain makes the same changes again, which has to change nothing.
func checkAgain(t *testing.T, name string, edited []byte, opts Options, changes []Change) {
	t.Helper()
	f, err := Parse(name, edited, opts)
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Uses) < len(changes) {
		t.Fatalf("%d uses left of %d", len(f.Uses), len(changes))
	}
	again := slices.Clone(changes)
	for i := range again {
		j := slices.IndexFunc(f.Uses, func(u *Use) bool {
			return u.Path == changes[i].Use.Path && u.Document == changes[i].Use.Document
		})
		if j < 0 {
			t.Fatalf("%s is not there any more", changes[i].Use.Path)
		}
		u := f.Uses[j]
		again[i].Use = u
		want := changes[i].Image
		if want != (Reference{}) && (u.Image.Name != want.Name || u.Image.Digest != want.Digest || u.Image.Tag != want.Tag) {
			t.Errorf("%s is %s, want %s", u.Path, u.Image, want)
		}
	}
	twice, err := f.Edit(again)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(twice, edited) {
		t.Errorf("the second time it changed:\n%s", Diff(name, edited, twice))
	}
}
