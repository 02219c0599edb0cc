//go:build e2e

package main_test

import (
	"archive/zip"
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/imgwrap/imgwrap/cmd/internal/testbed"
)

// TestE2EPipelines checks docs/ci by the linters and schemas of GitHub Actions and
// GitLab CI, and runs what is there as its users do: by act and gitlab-ci-local, in
// repositories of their own, against a registry. Only the registry's name differs,
// and what services do has stand-ins: building, logging in, keeping files, opening
// pull requests.
func TestE2EPipelines(t *testing.T) {
	bed := sharedBed(t)
	t.Parallel()
	w := build(t, bed)
	tools, err := bed.PipelineTools(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p := &pipelines{bed: bed, w: w, tools: tools, env: append(installEnv(t), "PATH="+tools+":"+pathWithout(t, "imgwrap"))}
	t.Run("lint", p.lint)
	t.Run("github", p.github)
	t.Run("gitlab", p.gitlab)
}

type pipelines struct {
	bed   *testbed.Bed
	w     imgwrap
	tools string   // directory of programs
	env   []string // of jobs, beside those of the tests
}

const ciDocs = "../../docs/ci"

// command is a command with the tools.
func (p *pipelines) command(t *testing.T, dir string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(p.tools, args[0]), args[1:]...)
	cmd.Dir = dir
	home := t.TempDir()
	cmd.Env = slices.Concat(os.Environ(), p.env, []string{"HOME=" + home, "XDG_CACHE_HOME=" + home})
	return cmd
}

// lint asks those whose formats they are, or who know them best.
func (p *pipelines) lint(t *testing.T) {
	glob := func(pattern string) []string {
		files, err := filepath.Glob(filepath.Join(ciDocs, pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("finding %s: %d, %v", pattern, len(files), err)
		}
		return files
	}
	check := func(args ...string) {
		t.Helper()
		if out, err := p.command(t, "", args...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", args[0], err, out)
		}
	}
	workflows, action := glob("github/workflows/*.yml"), glob("github/action.yml")
	check(append([]string{"actionlint", "-shellcheck=" + filepath.Join(p.tools, "shellcheck")}, workflows...)...)
	check(append([]string{"check-jsonschema", "--builtin-schema=vendor.github-workflows"}, workflows...)...)
	check(append([]string{"check-jsonschema", "--builtin-schema=vendor.github-actions"}, action...)...)
	check(append([]string{"check-jsonschema", "--builtin-schema=vendor.gitlab-ci", "--data-transform=gitlab-ci"}, glob("gitlab/.gitlab-ci.yml")...)...)
}

// github runs the workflows of docs/ci/github by act.
func (p *pipelines) github(t *testing.T) {
	g := &github{pipelines: p, store: t.TempDir(), actions: t.TempDir()}
	for name, steps := range standIns {
		g.write(t, filepath.Join(g.actions, name, "action.yml"), "name: stand-in\n"+steps)
	}
	if err := os.CopyFS(filepath.Join(g.actions, "imgwrap/imgwrap/docs/ci/github"), os.DirFS(filepath.Join(ciDocs, "github"))); err != nil {
		t.Fatal(err)
	}
	t.Run("wrap", g.wrap)
}

// wrap is the workflow of an application.
func (g *github) wrap(t *testing.T) {
	source, err := g.bed.Push(t.Context(), "trixie-flask", "shop/cart:v1.4")
	if err != nil {
		t.Fatal(err)
	}
	run := g.run(t, "wrap.yml", "push", `{"ref": "refs/tags/v1.4"}`, "BUILT="+source.String())
	got := run.outputs("image", "otel")
	ref := g.bed.Registry() + "/shop/cart:v1.4-otel"
	g.checkWrapped(t, ref, source)
	want := digest(t, image(t, ref)).String()
	if want := map[string]string{"image": ref, "tag": "v1.4-otel", "digest": want}; !maps.Equal(got, want) {
		t.Errorf("outputs %q, want %q", got, want)
	}
	checkSummary(t, run.summaries("image"), ref)
	if out := run.stdout("deploy"); !strings.Contains(out, "deploying "+ref+"@"+want) {
		t.Errorf("deploy printed %q", out)
	}
}

// github is what workflows run in.
type github struct {
	*pipelines
	store   string // directory of what the service keeps
	actions string // directory of the actions, OWNER/NAME
}

// nothing is what an action runs that does nothing.
const nothing = "runs: {using: composite, steps: [{shell: bash, run: 'true'}]}\n"

// standIns are the actions that need the service, or do what is not tested here.
var standIns = map[string]string{
	"actions/setup-go":           nothing,
	"docker/setup-buildx-action": nothing,
	"docker/login-action":        nothing,
	"docker/build-push-action": `
outputs: {digest: {value: "${{ steps.build.outputs.digest }}"}}
runs:
  using: composite
  steps:
    - {id: build, shell: bash, run: 'echo "digest=$BUILT" >> "$GITHUB_OUTPUT"'}
`,
	"actions/upload-artifact": `
inputs: {name: {}, path: {}}
runs:
  using: composite
  steps:
    - {shell: bash, run: 'mkdir -p "$STORE/${{ inputs.name }}" && cp ${{ inputs.path }} "$STORE/${{ inputs.name }}"'}
`,
	"actions/download-artifact": `
inputs: {name: {}}
runs:
  using: composite
  steps:
    - {shell: bash, run: 'cp "$STORE/${{ inputs.name }}"/* .'}
`,
	// It restores the wheels of all tests, as if another run had left them.
	"actions/cache": `
inputs: {path: {}, key: {}, restore-keys: {}}
runs:
  using: composite
  steps:
    - {shell: bash, run: 'mkdir .cache && ln -s "$CACHE/wheels" "$CACHE/layers" .cache'}
`,
	"actions/create-github-app-token": `
inputs: {app-id: {}, private-key: {}}
outputs: {token: {value: secret}}
` + nothing,
	"peter-evans/create-pull-request": `
inputs: {token: {}, branch: {}, add-paths: {}, commit-message: {}, title: {}, body-path: {}}
runs:
  using: composite
  steps:
    - shell: bash
      run: |
        mkdir "$STORE/pull-request"
        git add -- '${{ inputs.add-paths }}'
        git diff --cached > "$STORE/pull-request/diff"
        git status --porcelain | grep -v '^[AM] ' > "$STORE/pull-request/rest" || true
        cp '${{ inputs.body-path }}' "$STORE/pull-request/body"
`,
}

// run runs a workflow in the repository shop/cart, which has the files of a
// directory if one is named. env are variables of the stand-ins.
func (g *github) run(t *testing.T, workflow, event, payload string, env ...string) *githubRun {
	t.Helper()
	repo := t.TempDir()
	text, err := os.ReadFile(filepath.Join(ciDocs, "github/workflows", workflow))
	if err != nil {
		t.Fatal(err)
	}
	g.write(t, filepath.Join(repo, ".github/workflows", workflow), strings.ReplaceAll(string(text), "ghcr.io", g.bed.Registry()))
	commit(t, repo, "https://github.com/shop/cart")
	payloadFile := filepath.Join(t.TempDir(), "event.json")
	g.write(t, payloadFile, payload)
	args := []string{"act", event, "--json", "--platform=ubuntu-latest=-self-hosted", "--no-cache-server",
		"--eventpath=" + payloadFile, "--secret=GITHUB_TOKEN=secret"}
	for _, e := range append(env, "STORE="+g.store, "CACHE="+g.w.cache, "IMGWRAP_CACHE_DIR="+g.w.cache) {
		args = append(args, "--env="+e)
	}
	for _, uses := range usesOf(t, workflow) {
		name, ref, _ := strings.Cut(uses, "@")
		name = strings.Join(strings.Split(name, "/")[:2], "/")
		if name != "actions/checkout" { // act's own
			args = append(args, "--local-repository="+name+"@"+ref+"="+filepath.Join(g.actions, name))
		}
	}
	cmd := g.command(t, repo, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	r := &githubRun{}
	for lines := bufio.NewScanner(&stdout); lines.Scan(); {
		var e githubEvent
		if json.Unmarshal(lines.Bytes(), &e) == nil {
			r.events = append(r.events, e)
		}
	}
	if err != nil {
		t.Fatalf("%s: %v\n%s\n%s", workflow, err, r.messages(), stderr.String())
	}
	return r
}

// usesOf returns the actions that a workflow and the action use, OWNER/NAME[/PATH]@REF.
func usesOf(t *testing.T, workflow string) []string {
	t.Helper()
	var found []string
	for _, file := range []string{"github/workflows/" + workflow, "github/action.yml"} {
		text, err := os.ReadFile(filepath.Join(ciDocs, file))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if _, uses, ok := strings.Cut(line, "uses: "); ok {
				found = append(found, strings.Fields(uses)[0])
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// githubEvent is a line of act's log.
type githubEvent struct {
	JobID   string   `json:"jobID"`
	StepID  []string `json:"stepID"`
	Command string   `json:"command"`
	Name    string   `json:"name"`
	Arg     string   `json:"arg"`
	Content string   `json:"content"`
	Raw     bool     `json:"raw_output"`
	Message string   `json:"msg"`
}

type githubRun struct{ events []githubEvent }

func (r *githubRun) messages() string {
	var b strings.Builder
	for _, e := range r.events {
		fmt.Fprintln(&b, strings.TrimSuffix(e.Message, "\n"))
	}
	return b.String()
}

// outputs are those of a step.
func (r *githubRun) outputs(job, step string) map[string]string {
	outputs := map[string]string{}
	for _, e := range r.events {
		if e.JobID == job && e.Command == "set-output" && slices.Equal(e.StepID, []string{step}) {
			outputs[e.Name] = e.Arg
		}
	}
	return outputs
}

// summaries are those of a job's steps, in one.
func (r *githubRun) summaries(job string) string {
	var b strings.Builder
	for _, e := range r.events {
		if e.JobID == job && e.Command == "summary" && len(e.StepID) == 1 {
			b.WriteString(e.Content)
		}
	}
	return b.String()
}

// stdout is what a job's steps printed.
func (r *githubRun) stdout(job string) string {
	var b strings.Builder
	for _, e := range r.events {
		if e.JobID == job && e.Raw {
			b.WriteString(e.Message)
		}
	}
	return b.String()
}

// gitlab runs the templates of docs/ci/gitlab by gitlab-ci-local.
func (p *pipelines) gitlab(t *testing.T) {
	t.Run("wrap", p.gitlabWrap)
}

// gitlabWrap is the pipeline of an application. buildah builds the image, of what
// is in the registry.
func (p *pipelines) gitlabWrap(t *testing.T) {
	if _, err := p.bed.Push(t.Context(), "trixie-flask", "gitlab/base:1.0"); err != nil {
		t.Fatal(err)
	}
	repo := t.TempDir()
	p.write(t, filepath.Join(repo, "Dockerfile"), "FROM "+p.bed.Registry()+"/gitlab/base:1.0\nLABEL of=gitlab\n")
	out := p.gitlabCI(t, repo, "CI_COMMIT_TAG=v1.4")
	ref := p.bed.Registry() + "/gitlab/cart:v1.4-otel"
	p.checkWrapped(t, ref, digest(t, image(t, p.bed.Registry()+"/gitlab/cart:v1.4")))
	want := digest(t, image(t, ref)).String()
	if !strings.Contains(out, "deploying "+ref+"@"+want) {
		t.Errorf("deploy has not got what was wrapped:\n%s", out)
	}
	checkSummary(t, string(readFile(t, filepath.Join(repo, ".gitlab-ci-local/artifacts/imgwrap/imgwrap.md"))), ref)
}

// checkWrapped checks what the example of an application made of an image.
func (p *pipelines) checkWrapped(t *testing.T, ref string, source v1.Hash) {
	t.Helper()
	config, err := image(t, ref).ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if of := config.Config.Labels["io.imgwrap.source"]; !strings.HasSuffix(of, "@"+source.String()) {
		t.Errorf("made from %s, want %s", of, source)
	}
	if version := config.Config.Labels["io.imgwrap.version"]; version != installed {
		t.Errorf("by imgwrap %s, want %s", version, installed)
	}
	if env := config.Config.Env; !slices.Contains(env, "OTEL_EXPORTER_OTLP_ENDPOINT=http://collector.observability:4318") {
		t.Errorf("environment %q", env)
	}
}

// checkSummary checks Markdown that tells of a wrapped image.
func checkSummary(t *testing.T, summary, ref string) {
	t.Helper()
	for _, line := range []string{"| Wrapped image | `" + ref + "` |", "| Digest | `" + digest(t, image(t, ref)).String() + "` |"} {
		if !strings.Contains(summary, line+"\n") {
			t.Errorf("the summary lacks %q:\n%s", line, summary)
		}
	}
}

// gitlabCI runs the pipeline of a directory that has a copy of docs/ci/gitlab.
func (p *pipelines) gitlabCI(t *testing.T, repo string, variables ...string) string {
	t.Helper()
	if err := os.CopyFS(repo, os.DirFS(filepath.Join(ciDocs, "gitlab"))); err != nil {
		t.Fatal(err)
	}
	commit(t, repo, "https://gitlab.com/gitlab/cart.git")
	args := []string{"gitlab-ci-local", "--force-shell-executor", "--shell-isolation"}
	variables = append(variables, "CI_REGISTRY="+p.bed.Registry(), "CI_REGISTRY_IMAGE="+p.bed.Registry()+"/gitlab/cart",
		"CI_REGISTRY_USER=ci", "CI_REGISTRY_PASSWORD=secret")
	var names []string
	for _, v := range variables {
		name, _, _ := strings.Cut(v, "=")
		args, names = append(args, "--variable="+v), append(names, name)
	}
	args = append(args, "--ignore-predefined-vars="+strings.Join(names, ","))
	out, err := p.command(t, repo, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("gitlab-ci-local: %v\n%s", err, out)
	}
	return string(out)
}

// write writes a file of a test's own.
func (p *pipelines) write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// commit makes a directory a repository of git, with all files committed, and an
// origin that is not there.
func commit(t *testing.T, dir, origin string) {
	t.Helper()
	for _, args := range [][]string{
		{"init", "--quiet", "--initial-branch=main"},
		{"remote", "add", "origin", origin},
		{"add", "--all"},
		{"-c", "user.name=ci", "-c", "user.email=ci@example.com", "commit", "--quiet", "--message=begin"},
	} {
		output(t, "git", append([]string{"-C", dir}, args...)...)
	}
}

// pathWithout is the environment's PATH without the directories that have a program.
// One is that of the tests of scripts.
func pathWithout(t *testing.T, program string) string {
	t.Helper()
	return strings.Join(slices.DeleteFunc(filepath.SplitList(os.Getenv("PATH")), func(dir string) bool {
		_, err := os.Stat(filepath.Join(dir, program))
		return err == nil
	}), ":")
}

// installed is the version that go install finds.
const installed = "v1.0.0"

// installEnv is an environment in which go install finds this module, as it is
// here, in a module proxy as its version [installed], and what it requires in the
// module cache. Programs are built with the flags of [testbed.Bed.GoBuild], whose
// results go has kept.
func installEnv(t *testing.T) []string {
	t.Helper()
	const path = "github.com/imgwrap/imgwrap"
	proxy, root := t.TempDir(), "../.."
	dir := filepath.Join(proxy, path, "@v")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	z := zip.NewWriter(&archive)
	for _, part := range []string{"go.mod", "go.sum", "cmd", "image", "layer"} { // those of the Dockerfile
		err := filepath.WalkDir(filepath.Join(root, part), func(file string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || strings.HasSuffix(file, "_test.go") {
				return err
			}
			name, err := filepath.Rel(root, file)
			if err != nil {
				return err
			}
			content, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			f, err := z.Create(path + "@" + installed + "/" + filepath.ToSlash(name))
			if err == nil {
				_, err = f.Write(content)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"list":              []byte(installed + "\n"),
		installed + ".info": []byte(`{"Version": "` + installed + `"}`),
		installed + ".mod":  mod,
		installed + ".zip":  archive.Bytes(),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cache := strings.TrimSpace(output(t, "go", "env", "GOMODCACHE"))
	return []string{
		"GOPROXY=file://" + proxy + ",file://" + filepath.Join(cache, "cache/download"),
		"GOSUMDB=off", "GOTOOLCHAIN=local",
		"GOPATH=" + t.TempDir(), "GOMODCACHE=" + t.TempDir(), "GOCACHE=" + strings.TrimSpace(output(t, "go", "env", "GOCACHE")),
		"GOFLAGS=-trimpath -modcacherw", "CGO_ENABLED=0",
	}
}
