//go:build e2e

package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"go.yaml.in/yaml/v3"

	"github.com/imgwrap/imgwrap/cmd/internal/testbed"
	"github.com/imgwrap/imgwrap/image/promote"
)

// shopRegistry is where testdata/promote has its images from.
const shopRegistry = "registry.example.com/shop/"

// gitops are repositories of manifests and what people use them with.
type gitops struct {
	*testing.T
	bed       *testbed.Bed
	internet  *testbed.Internet
	env       []string
	imgwrap   string
	kustomize string
}

// newGitops starts registries that have images made of recipes, and some that hold
// no Python.
func newGitops(t *testing.T, recipes map[string][]string, others ...string) *gitops {
	t.Helper()
	bed := newBed(t)
	w := build(t, bed)
	g := &gitops{T: t, bed: bed, imgwrap: w.program}
	var err error
	if g.kustomize, err = bed.Kustomize(t.Context()); err != nil {
		t.Fatal(err)
	}
	for recipe, refs := range recipes {
		img, err := bed.Image(t.Context(), recipe)
		if err != nil {
			t.Fatal(err)
		}
		for _, ref := range refs {
			config, err := img.ConfigFile()
			if err != nil {
				t.Fatal(err)
			}
			c := config.DeepCopy().Config
			c.Labels = map[string]string{"org.opencontainers.image.title": ref} // no two are the same
			labelled, err := mutate.Config(img, c)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := bed.PushImage(t.Context(), labelled, "shop/"+ref); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, ref := range others {
		if _, err := bed.PushImage(t.Context(), baseImage(t), ref); err != nil {
			t.Fatal(err)
		}
	}
	if g.internet, err = bed.Internet(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.internet.Close(); err != nil {
			t.Error(err)
		}
	})
	g.env = slices.Concat(os.Environ(), g.internet.Env(), []string{
		"NO_PROXY=pypi.org,files.pythonhosted.org", // the real ones, unless the cache has the bundles
		"IMGWRAP_CACHE_DIR=" + w.cache,
		"PATH=" + filepath.Dir(g.imgwrap) + ":" + filepath.Dir(g.kustomize) + ":" + os.Getenv("PATH"),
		"HOME=" + t.TempDir(), "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=A Person", "GIT_AUTHOR_EMAIL=person@example.com",
		"GIT_COMMITTER_NAME=A Person", "GIT_COMMITTER_EMAIL=person@example.com",
	})
	return g
}

// run runs a program in a directory and returns its exit code and what it wrote.
func (g *gitops) run(dir string, args ...string) (code int, stdout, stderr string) {
	g.Helper()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(g.Context(), "env", args...) // which looks programs up in their PATH
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, g.env, &out, &errs
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		g.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// do runs a program that has to succeed and returns its standard output.
func (g *gitops) do(dir string, args ...string) string {
	g.Helper()
	code, stdout, stderr := g.run(dir, args...)
	if code != 0 {
		g.Fatalf("%s: exit code %d\n%s%s", strings.Join(args, " "), code, stdout, stderr)
	}
	return stdout
}

// digest of an image of the shop.
func (g *gitops) digest(ref string) string {
	g.Helper()
	return digest(g.T, image(g.T, g.bed.Registry()+"/shop/"+ref)).String()
}

// repository makes a repository of git out of a directory of testdata/promote.
func (g *gitops) repository(name string, replace ...string) string {
	g.Helper()
	dir := filepath.Join(g.TempDir(), name)
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("../../testdata/promote", name))); err != nil {
		g.Fatal(err)
	}
	replacer := strings.NewReplacer(replace...)
	for name, content := range files(g.T, dir) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(replacer.Replace(content)), 0o644); err != nil {
			g.Fatal(err)
		}
	}
	g.do(dir, "git", "init", "--quiet", "--initial-branch=main")
	g.do(dir, "git", "add", "--all")
	g.do(dir, "git", "commit", "--quiet", "--message=begin")
	return dir
}

// files are the contents of what is below a directory, without git's own.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if d != nil && d.Name() == ".git" {
			return fs.SkipDir
		}
		if err == nil && d.Type().IsRegular() {
			var content []byte
			content, err = os.ReadFile(filepath.Join(dir, name))
			all[name] = string(content)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// pushed counts the requests to registries that write since it was called last.
func (g *gitops) pushed() int {
	n := 0
	for kind, count := range g.internet.Traffic().Kinds {
		if !strings.HasPrefix(kind, "GET ") && !strings.HasPrefix(kind, "HEAD ") {
			n += count.Requests
		}
	}
	return n
}

// applied are the files of what was committed in a repository, with a difference
// applied to them.
func (g *gitops) applied(repository, diff string) map[string]string {
	g.Helper()
	dir, patch := g.TempDir(), filepath.Join(g.TempDir(), "diff")
	if err := os.WriteFile(patch, []byte(diff), 0o644); err != nil {
		g.Fatal(err)
	}
	g.do(dir, "git", "clone", "--quiet", repository, ".")
	g.do(dir, "git", "apply", "--whitespace=nowarn", patch)
	return files(g.T, dir)
}

// promoted is what the tests read of imgwrap promote -o json.
type promoted struct {
	Images []struct {
		State string     `json:"state"`
		Uses  []struct{} `json:"uses"`
	} `json:"images"`
	Files    []string `json:"files"`
	Warnings []string `json:"warnings"`
}

func (p promoted) states() map[string]int {
	n := map[string]int{}
	for _, i := range p.Images {
		n[i.State]++
	}
	return n
}

// TestE2EPromoteManifests promotes a repository that has manifests of all styles.
func TestE2EPromoteManifests(t *testing.T) {
	t.Parallel()
	recipes := map[string][]string{
		"bookworm-gunicorn": {"web:1.8.1", "web:1.8.2"},
		"bookworm-entry":    {"worker:5.0", "jobs:v2024.10", "jobs:v2024.11", "agent:0.4.1", "mail:3"},
		"bookworm-django":   {"cron:4.0.0", "etl:7", "hello:v1"}, // the launcher is not on PATH
		"bookworm-uv":       {"api:9.1", "report:2.0.2"},         // nor here
	}
	others := []string{"shop/proxy:1", "library/busybox:1.36", "library/postgres:16", "library/redis:7", "curlimages/curl:8.10.1"}
	g := newGitops(t, recipes, others...)
	dir := g.repository("repository",
		"sha256:"+strings.Repeat("1", 64), g.digest("report:2.0.2"),
		"sha256:"+strings.Repeat("2", 64), g.digest("web:1.8.1"))
	before := files(t, dir)
	overlays := []string{"kustomize/overlays/staging", "kustomize/overlays/production", "kustomize/overlays/legacy"}
	var built []string
	for _, overlay := range overlays {
		built = append(built, g.do(dir, "kustomize", "build", overlay))
	}

	fields := []string{"--field=Shop:spec.image", "--field=spec.workers[*].runtime"}
	command := slices.Concat([]string{"imgwrap", "promote", "."}, fields)
	run := func(args ...string) (p promoted) {
		t.Helper()
		out := g.do(dir, slices.Concat(command, []string{"-o", "json"}, args)...)
		if err := json.Unmarshal([]byte(out), &p); err != nil {
			t.Fatalf("reading %s: %v", out, err)
		}
		return p
	}
	const endpoint = "--endpoint=http://collector:4318"
	diff := g.do(dir, append(command, "--dry-run", endpoint)...)
	if n := g.pushed(); n != 0 || !maps.Equal(before, files(t, dir)) {
		t.Errorf("--dry-run sent %d requests that write", n)
	}
	p := run(endpoint)
	if g.pushed() == 0 {
		t.Error("nothing was pushed")
	}
	after := files(t, dir)
	if !maps.Equal(after, g.applied(dir, diff)) {
		t.Error("--dry-run shows another difference than what changed")
	}
	w := g.wrapped(recipes)
	w.checkDiff(g.do(dir, "git", "-c", "core.quotePath=off", "diff", "--unified=0", "--no-color"))
	w.checkFiles(before, after, fields)
	for i, overlay := range overlays {
		w.checkBuild(overlay, built[i], g.do(dir, "kustomize", "build", overlay))
	}
	// Two of the images are named by digest, too.
	if want := map[string]int{"wrapped": len(w.images) + 2, "kept": len(others)}; !maps.Equal(p.states(), want) {
		t.Errorf("states are %v, want %v", p.states(), want)
	}
	for _, want := range []string{
		`workloads/web/deployment.yaml:30: OTEL_SERVICE_NAME is "storefront" here`,
		`compose/docker-compose.prod.yml:10: OTEL_EXPORTER_OTLP_ENDPOINT is "http://other:4318" here`,
		`argocd/applicationset.yaml:18: `,
		`compose/docker-compose.prod.yml:4: `,
		`charts/shop/templates/deployment.yaml is left alone: it is not YAML but a template`,
	} {
		if !slices.ContainsFunc(p.Warnings, func(w string) bool { return strings.HasPrefix(w, want) }) {
			t.Errorf("no warning says %s: %q", want, p.Warnings)
		}
	}
	untracked := g.do(dir, "git", "ls-files", "--others")
	if untracked != "imgwrap.lock\n" {
		t.Errorf("there are new files: %s", untracked)
	}

	// Nothing is left to do, for whoever looks.
	again := run()
	if n := g.pushed(); n != 0 || len(again.Files) != 0 || !maps.Equal(after, files(t, dir)) {
		t.Errorf("promoting again sent %d requests that write and changed %q", n, again.Files)
	}
	if want := map[string]int{"current": len(w.images), "kept": len(others)}; !maps.Equal(again.states(), want) {
		t.Errorf("states are %v then, want %v", again.states(), want)
	}
	g.do(dir, append(command, "--check")...)
	if n := g.pushed(); n != 0 || !maps.Equal(after, files(t, dir)) {
		t.Errorf("--check sent %d requests that write", n)
	}
	uses := 0
	for _, i := range p.Images {
		uses += len(i.Uses)
	}
	t.Logf("%d files, %d of them changed, with %d uses of %d images, %d of them wrapped", len(before), len(p.Files)-1, uses, len(p.Images), p.states()["wrapped"])
}

// wrappedImages are wrapped images by the references of their sources.
type wrappedImages struct {
	*testing.T
	images map[string]wrappedImage
}

type wrappedImage struct {
	digest   string
	launcher string // as its entry point names it
}

func (g *gitops) wrapped(recipes map[string][]string) *wrappedImages {
	g.Helper()
	w := &wrappedImages{g.T, map[string]wrappedImage{}}
	for _, refs := range recipes {
		for _, ref := range refs {
			img := image(g.T, g.bed.Registry()+"/shop/"+ref+"-otel")
			config, err := img.ConfigFile()
			if err != nil {
				g.Fatal(err)
			}
			w.images[shopRegistry+ref] = wrappedImage{digest(g.T, img).String(), config.Config.Entrypoint[0]}
		}
	}
	return w
}

// of is what a reference has to become.
func (w *wrappedImages) of(r promote.Reference) promote.Reference {
	if im, ok := w.images[r.Name+":"+r.Tag]; ok {
		return promote.Reference{Name: r.Name, Tag: r.Tag + "-otel", Digest: im.digest}
	}
	return r
}

// launcher is what commands need in front in containers of an image, whatever its
// tag, or of one that is replaced by it.
func (w *wrappedImages) launcher(r promote.Reference) string {
	w.Helper()
	name := shopRegistry + strings.TrimPrefix(path.Base(r.Name), "shop-") + ":"
	for ref, im := range w.images {
		if strings.HasPrefix(ref, name) {
			return im.launcher
		}
	}
	w.Fatalf("no image of %s is wrapped", r)
	return ""
}

// What promoting puts into manifests.
var (
	launcherLine = regexp.MustCompile(`(?m)^[ \t]*(?:- )?[ \t]*["']?[a-z/.]*opentelemetry-instrument["']?,?\r?\n`)
	launcherItem = regexp.MustCompile(`["']?[a-z/.]*opentelemetry-instrument["']?, `)
	launcherWord = regexp.MustCompile(`[a-z/.]*opentelemetry-instrument ?`)
	wrappedTag   = regexp.MustCompile(`-otel\b`)
	imageDigest  = regexp.MustCompile(`@?sha256:[0-9a-f]{64}`)
	digestLine   = regexp.MustCompile(`(?m)^[ \t]*(?:- )?"?digest"?: ?(?:""|'')?\r?\n`)
	digestKey    = regexp.MustCompile(`, "?digest"?: ?(?:""|'')? ?`)
)

// without is a text of YAML without that.
func without(text string) string {
	for _, r := range []*regexp.Regexp{launcherLine, launcherItem, launcherWord, wrappedTag, imageDigest, digestLine, digestKey} {
		text = r.ReplaceAllLiteralString(text, "")
	}
	return text
}

var (
	fileOfDiff = regexp.MustCompile(`(?m)^diff --git `)
	hunk       = regexp.MustCompile(`(?m)^@@ .* @@.*\n`)
)

// checkDiff has every hunk of git diff be without, but for what promoting puts
// there, what it was before.
func (w *wrappedImages) checkDiff(diff string) {
	w.Helper()
	hunks, lines := 0, 0
	for _, file := range fileOfDiff.Split(diff, -1) {
		parts := hunk.Split(file, -1)
		for _, h := range parts[1:] {
			var was, is strings.Builder
			for line := range strings.Lines(h) {
				switch line[0] {
				case '-':
					was.WriteString(line[1:])
				case '+':
					is.WriteString(line[1:])
					lines++
				default:
					w.Errorf("git diff has %q", line)
				}
			}
			hunks++
			if is := without(is.String()); is != without(was.String()) && !isAppVersion(file, was.String(), is) {
				w.Errorf("more than images and commands changed:\n%s\n%s", parts[0], h)
			}
		}
	}
	if hunks == 0 {
		w.Error("git diff shows no change")
	}
	w.Logf("git diff: %d hunks, %d lines", hunks, lines)
}

// isAppVersion says whether a tag that was empty became the version of its chart.
func isAppVersion(file, was, is string) bool {
	return strings.HasPrefix(file, "a/charts/shop/values.yaml ") && was == "  tag: \"\"\n" && is == "  tag: \"1.8.2\"\n"
}

// checkFiles parses the manifests again. Every image of the shop has to be the
// wrapped one, the others what they were.
func (w *wrappedImages) checkFiles(before, after map[string]string, fields []string) {
	w.Helper()
	var opts promote.Options
	for _, f := range fields {
		field, err := promote.ParseField(strings.TrimPrefix(f, "--field="))
		if err != nil {
			w.Fatal(err)
		}
		opts.Fields = append(opts.Fields, field)
	}
	manifests := 0
	for name, content := range before {
		if strings.HasPrefix(name, ".") {
			if after[name] != content {
				w.Errorf("%s changed", name)
			}
			continue
		}
		was, err := promote.Parse(name, []byte(content), opts)
		if err != nil {
			if after[name] != content {
				w.Errorf("%s changed: %v", name, err)
			}
			continue
		}
		is, err := promote.Parse(name, []byte(after[name]), opts)
		if err != nil {
			w.Errorf("%s is no manifest any more: %v", name, err)
			continue
		}
		if len(was.Uses) > 0 {
			manifests++
		}
		if len(is.Uses) != len(was.Uses) {
			w.Errorf("%s names %d images, before %d", name, len(is.Uses), len(was.Uses))
			continue
		}
		for i, u := range was.Uses {
			w.checkUse(u, is.Uses[i])
		}
	}
	if manifests < 30 {
		w.Errorf("there are %d files with images, too few", manifests)
	}
	w.Logf("%d files name images", manifests)
}

func (w *wrappedImages) checkUse(was, is *promote.Use) {
	w.Helper()
	at := was.File + " " + was.Path
	r := was.Image
	if was.File == "charts/shop/values.yaml" && r.Tag == "" {
		r.Tag = "1.8.2" // the version of the chart
	}
	want := w.of(r)
	if want == r {
		want = was.Image
	}
	if is.Image != want {
		w.Errorf("%s: %s became %s, want %s", at, was.Image, is.Image, want)
	}
	if was.Command == nil {
		return
	}
	// A patch has the command alone, and what kustomizations replace is none of the
	// registry's.
	_, placeholder := strings.CutPrefix(r.Name, "shop-")
	switch {
	case was.Form == "":
		r.Name, placeholder = "shop-"+was.Container, true
	case r.Tag == "0.0.0":
		placeholder = true
	}
	args, text := was.Command.Args, was.Command.Text
	if want != was.Image || placeholder {
		switch l := w.launcher(r); {
		case was.Command.Starts(l):
		case args != nil:
			args = append([]string{l}, args...)
		default:
			text = l + " " + text
		}
	}
	if is.Command == nil || !slices.Equal(is.Command.Args, args) || is.Command.Text != text {
		w.Errorf("%s: the command became %+v, want %q %q", at, is.Command, args, text)
	}
}

// checkBuild compares what kustomize builds.
func (w *wrappedImages) checkBuild(overlay, before, after string) {
	w.Helper()
	was, is := documents(w.T, before), documents(w.T, after)
	c := comparison{w, overlay, 0, 0}
	c.compare("", was, is)
	if c.images == 0 || c.commands == 0 {
		w.Errorf("%s builds %d other images and %d other commands", overlay, c.images, c.commands)
	}
	w.Logf("kustomize build %s: %d objects, %d other images, %d other commands", overlay, len(was), c.images, c.commands)
}

// documents are those of a stream of YAML.
func documents(t *testing.T, text string) (all []any) {
	t.Helper()
	for d := yaml.NewDecoder(strings.NewReader(text)); ; {
		var v any
		if err := d.Decode(&v); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, v)
	}
}

// A comparison counts what differs as it should.
type comparison struct {
	*wrappedImages
	name             string
	images, commands int
}

func (c *comparison) compare(at string, was, is any) {
	c.Helper()
	switch was := was.(type) {
	case map[string]any:
		is, _ := is.(map[string]any)
		if !slices.Equal(slices.Sorted(maps.Keys(was)), slices.Sorted(maps.Keys(is))) {
			c.Errorf("%s: %s has other keys", c.name, at)
			return
		}
		image, _ := was["image"].(string)
		if strings.HasSuffix(at, ".annotations") {
			image = ""
		}
		r, _ := promote.ParseReference(image)
		for key := range was {
			at := at + "." + key
			switch {
			case key == "image" && image != "":
				if want := c.of(r); want.String() != is[key] {
					c.Errorf("%s: %s is %v, want %s", c.name, at, is[key], want)
				} else if want != r {
					c.images++
				}
			case key == "command" && c.of(r) != r:
				c.compare(at, append([]any{c.launcher(r)}, was[key].([]any)...), is[key])
				c.commands++
			default:
				c.compare(at, was[key], is[key])
			}
		}
	case []any:
		is, _ := is.([]any)
		if len(is) != len(was) {
			c.Errorf("%s: %s has %d items, want %d", c.name, at, len(is), len(was))
			return
		}
		for i := range was {
			c.compare(at+"[]", was[i], is[i])
		}
	default:
		if !reflect.DeepEqual(was, is) {
			c.Errorf("%s: %s is %v, want %v", c.name, at, is, was)
		}
	}
}

// documented are the commands of a section of a page: lines that begin with a
// prompt.
func documented(t *testing.T, page, section string) []string {
	t.Helper()
	_, text, ok := strings.Cut(string(readFile(t, filepath.Join("../../docs", page))), "\n### "+section+"\n")
	text, _, _ = strings.Cut(text, "\n#")
	var commands []string
	for line := range strings.Lines(text) {
		if command, ok := strings.CutPrefix(line, "    $ "); ok {
			commands = append(commands, strings.TrimSpace(command))
		}
	}
	if !ok || len(commands) == 0 {
		t.Fatalf("docs/%s has no commands in a section %s", page, section)
	}
	return commands
}

// follow runs the documented commands of a section.
func (g *gitops) follow(dir, section string) {
	g.Helper()
	for _, command := range documented(g.T, "promote.md", section) {
		g.do(dir, "sh", "-c", command)
	}
}

// check runs the documented command of a pipeline in a clone, for an environment,
// and returns its exit code and what it says.
func (g *gitops) check(clone, environment string) (code int, said string) {
	g.Helper()
	g.do(clone, "git", "pull", "--quiet")
	commands := documented(g.T, "promote.md", "Pull requests")
	if len(commands) != 1 {
		g.Fatalf("the check is not one command: %q", commands)
	}
	command := strings.ReplaceAll(commands[0], "staging", environment)
	code, _, said = g.run(clone, "sh", "-c", command)
	if n := g.pushed(); n != 0 {
		g.Errorf("%s sent %d requests that write", command, n)
	}
	if s := g.do(clone, "git", "status", "--porcelain"); s != "" {
		g.Errorf("%s changed files: %s", command, s)
	}
	return code, said
}

// images are those that kustomize builds for an environment, by container.
func (g *gitops) images(dir, environment string) map[string]string {
	g.Helper()
	all := map[string]string{}
	f, err := promote.Parse(environment, []byte(g.do(dir, "kustomize", "build", environment)), promote.Options{})
	if err != nil {
		g.Fatal(err)
	}
	for _, u := range f.Uses {
		all[u.Container] = u.Image.String()
		if c := u.Command; c != nil {
			all[u.Container] += " " + strings.Join(c.Args[:2], " ")
		}
	}
	return all
}

// TestE2EPromotion takes a repository with two environments through what
// docs/promote.md says, by its very commands.
func TestE2EPromotion(t *testing.T) {
	t.Parallel()
	g := newGitops(t, map[string][]string{"bookworm-gunicorn": {"web:1.8.1", "web:1.8.2", "web:1.9.0"}, "bookworm-entry": {"worker:5.0"}}, "library/redis:7")
	origin := g.repository("gitops")
	bare := filepath.Join(t.TempDir(), "shop.git")
	g.do(origin, "git", "clone", "--quiet", "--bare", ".", bare)
	dir, ci := filepath.Join(t.TempDir(), "shop"), filepath.Join(t.TempDir(), "ci")
	g.do(origin, "git", "clone", "--quiet", bare, dir)
	g.do(origin, "git", "clone", "--quiet", bare, ci)
	begin := files(t, dir)
	image := func(ref string) string { return shopRegistry + ref + "-otel@" + g.digest(ref+"-otel") }
	expect := func(what string, got, want map[string]string) {
		t.Helper()
		if !maps.Equal(got, want) {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}

	if code, said := g.check(ci, "staging"); code != 4 || !strings.Contains(said, "staging/kustomization.yaml:10") {
		t.Errorf("before anything was promoted, --check exits with %d: %s", code, said)
	}
	g.follow(dir, "Staging")
	if g.pushed() == 0 {
		t.Error("nothing was pushed")
	}
	celery := " opentelemetry-instrument celery"
	staging := map[string]string{"web": image("web:1.8.2"), "worker": image("worker:5.0") + celery, "cache": "redis:7"}
	expect("staging", g.images(dir, "staging"), staging)
	for name, content := range files(t, dir) {
		if !strings.HasPrefix(name, "staging/") && content != begin[name] {
			t.Errorf("%s changed", name)
		}
	}
	if code, said := g.check(ci, "staging"); code != 0 {
		t.Errorf("after staging was promoted, --check exits with %d: %s", code, said)
	}

	production := func(want map[string]string) {
		t.Helper()
		g.follow(dir, "Production")
		for kind, count := range g.internet.Traffic().Kinds {
			if kind != "HEAD manifest" && kind != "GET /v2/" {
				t.Errorf("copying digests sent %d requests %s", count.Requests, kind)
			}
		}
		expect("production", g.images(dir, "production"), want)
		if code, said := g.check(ci, "production"); code != 0 {
			t.Errorf("after a promotion to production, --check exits with %d: %s", code, said)
		}
	}
	production(staging)
	first := files(t, dir)

	g.follow(dir, "A new version")
	code, said := g.check(ci, "staging")
	if code != 4 || !strings.Contains(said, "web:1.9.0") {
		t.Errorf("with a version that is not wrapped, --check exits with %d: %s", code, said)
	}
	if code, said := g.check(ci, "production"); code != 0 {
		t.Errorf("production has no new version, but --check exits with %d: %s", code, said)
	}
	g.follow(dir, "Promoting it")
	if g.pushed() == 0 {
		t.Error("nothing was pushed")
	}
	staging["web"] = image("web:1.9.0")
	expect("staging", g.images(dir, "staging"), staging)
	if code, said := g.check(ci, "staging"); code != 0 {
		t.Errorf("with the new version, --check exits with %d: %s", code, said)
	}
	production(staging)

	g.follow(dir, "Rollback")
	for name, content := range files(t, dir) {
		if strings.HasPrefix(name, "production/") && content != first[name] {
			t.Errorf("the rollback leaves %s as\n%s\nwant\n%s", name, content, first[name])
		}
	}
	if got := g.images(dir, "production"); got["web"] != image("web:1.8.2") {
		t.Errorf("after the rollback, production has %q", got)
	}
	if code, said := g.check(ci, "production"); code != 0 {
		t.Errorf("after the rollback, --check exits with %d: %s", code, said)
	}
}
