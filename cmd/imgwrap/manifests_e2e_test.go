//go:build e2e

package main_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestE2EManifests checks every manifest of the documentation against what its
// kind's project publishes.
func TestE2EManifests(t *testing.T) {
	bed := sharedBed(t)
	t.Parallel()
	program, err := bed.Manifests(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const docs = "../../docs"
	manifest := regexp.MustCompile(`(?m)^apiVersion: *\S`)
	clusterless := regexp.MustCompile(`(?m)^apiVersion: *kustomize\.config\.k8s\.io/`)
	var files []string
	err = filepath.WalkDir(docs, func(file string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ext := filepath.Ext(file); ext != ".yaml" && ext != ".yml" {
			return nil
		}
		content, err := os.ReadFile(file)
		if err == nil && manifest.Match(content) && !clusterless.Match(content) {
			files = append(files, file)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	checked, problems := checkManifests(t, program, docs)
	if problems != "" {
		t.Error(problems)
	}
	for _, file := range files {
		if !strings.Contains(checked, file+":") {
			t.Errorf("%s was not checked", file)
		}
	}

	// Were it wrong, it would be seen.
	for _, tt := range []struct{ name, file, old, new, problem string }{
		{"misspelt field of Kubernetes", "kubernetes-job/job.yaml", "\n  parallelism:", "\n  paralellism:", `unknown field "spec.paralellism"`},
		{"wrong type of Kubernetes", "kubernetes-job/job.yaml", "\n  completions: ", "\n  completions: many ", `spec.completions in body must be of type integer`},
		{"misspelt field of Argo Workflows", "argo-workflows/workflowtemplate.yaml", "withParam:", "withParams:", `.withParams"`},
		{"misspelt field of Argo Events", "argo-events/sensor.yaml", "conditions:", "condition:", `.condition"`},
		{"parameter that Tekton's task has not", "tekton/task.yaml", "$(params.endpoint)", "$(params.end-point)", `non-existent variable`},
		{"parameter that Tekton's trigger has not", "tekton-triggers/eventlistener.yaml", "$(tt.params.image)", "$(tt.params.ref)", `undeclared param`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			content, err := os.ReadFile(filepath.Join(docs, "examples", tt.file))
			if err != nil {
				t.Fatal(err)
			}
			broken := strings.Replace(string(content), tt.old, tt.new, 1)
			if broken == string(content) {
				t.Fatalf("%s has no %q", tt.file, tt.old)
			}
			file := filepath.Join(t.TempDir(), "broken.yaml")
			if err := os.WriteFile(file, []byte(broken), 0o644); err != nil {
				t.Fatal(err)
			}
			if _, problems := checkManifests(t, program, file); !strings.Contains(problems, tt.problem) {
				t.Errorf("problems:\n%s\nwant one with %q", problems, tt.problem)
			}
		})
	}
}

// checkManifests returns which manifests there are, and what is wrong with them.
func checkManifests(t *testing.T, program, path string) (checked, problems string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), program, path)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil && cmd.ProcessState.ExitCode() != 1 {
		t.Fatalf("checking %s: %v\n%s", path, err, &stderr)
	}
	return stdout.String(), stderr.String()
}

// TestE2EJob does what the Job among the examples does, Pod by Pod.
func TestE2EJob(t *testing.T) {
	bed := sharedBed(t)
	t.Parallel()
	w := build(t, bed)
	images, err := bed.Fleet(t.Context(), bed.Registry()+"/job", 2, 8)
	if err != nil {
		t.Fatal(err)
	}
	job := readManifest(t, "kubernetes-job/job.yaml", "Job", "imgwrap").Spec
	container := job.Template.Spec.Containers[0]
	if job.Completions <= job.Parallelism {
		t.Errorf("there are %d parts for %d Pods at a time: no queue", job.Completions, job.Parallelism)
	}
	if want := strconv.Itoa(job.Completions); !slices.Contains(container.Env, variable{"JOB_COMPLETIONS", want}) {
		t.Errorf("variables %v, want JOB_COMPLETIONS=%s", container.Env, want)
	}

	var list strings.Builder
	fmt.Fprintln(&list, "defaults: {endpoint: http://collector:4318}\nimages:")
	for _, im := range images {
		fmt.Fprintln(&list, "  - "+im.Reference)
	}
	dir := t.TempDir()
	unresolved := filepath.Join(dir, "images.yaml")
	if err := os.WriteFile(unresolved, []byte(list.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	volumes := map[string]string{}
	for _, name := range []string{"images", "registry-credentials", "work"} {
		volumes[name] = t.TempDir()
	}
	resolved := filepath.Join(volumes["images"], "images.yaml")
	for file, content := range map[string]string{
		resolved: w.run(t, "bulk", unresolved, "--list"),
		filepath.Join(volumes["registry-credentials"], "config.json"): "{}",
	} {
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}

	var pods sync.WaitGroup
	slots := make(chan struct{}, job.Parallelism)
	wrapped := make([]string, job.Completions) // standard output of Pods
	for i := range wrapped {
		slots <- struct{}{}
		pods.Go(func() {
			defer func() { <-slots }()
			wrapped[i] = w.pod(t, container, volumes, variable{"JOB_COMPLETION_INDEX", strconv.Itoa(i)})
		})
	}
	pods.Wait()
	if t.Failed() {
		return
	}

	lines := strings.Fields(strings.Join(wrapped, ""))
	if len(lines) != len(images) {
		t.Errorf("%d images were wrapped, want %d: %s", len(lines), len(images), lines)
	}
	// Nothing is left to do for one that does all by itself.
	var report struct {
		Images []struct{ Source, State, Name string }
	}
	if err := json.Unmarshal([]byte(w.run(t, "bulk", resolved, "-o", "json")), &report); err != nil {
		t.Fatal(err)
	}
	if len(report.Images) != len(images) {
		t.Errorf("the report has %d images, want %d", len(report.Images), len(images))
	}
	for _, im := range report.Images {
		if im.State != "current" || !slices.Contains(lines, im.Name) {
			t.Errorf("%s: %s is %s, want one that is current and that a Pod has made", im.Source, im.Name, im.State)
		}
	}
}

// TestE2ETekton runs the scripts of Tekton's tasks among the examples, and a step of
// Argo's, whose output is taken apart by lines.
func TestE2ETekton(t *testing.T) {
	bed := sharedBed(t)
	t.Parallel()
	w := build(t, bed)
	images, err := bed.Fleet(t.Context(), bed.Registry()+"/tekton", 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	ref := images[0].Reference

	task := readManifest(t, "tekton/task.yaml", "Task", "imgwrap").Spec
	results := w.script(t, task.Steps[0], t.TempDir(), map[string]string{"$(params.endpoint)": "http://collector:4318", "$(params.image)": ref})
	if results["image"] != ref+"-otel" || results["IMAGE_URL"] != results["image"] || !strings.HasSuffix(results["image"], ":"+results["tag"]) {
		t.Errorf("results %v of %s", results, ref)
	}
	want := digest(t, image(t, ref+"-otel")).String()
	if results["digest"] != want || results["IMAGE_DIGEST"] != want {
		t.Errorf("results %v, want the digest %s", results, want)
	}

	for _, template := range readManifest(t, "argo-workflows/workflowtemplate.yaml", "WorkflowTemplate", "imgwrap").Spec.Templates {
		if template.Name != "imgwrap" {
			continue
		}
		args := replaceAll(template.Container.Args, map[string]string{"{{inputs.parameters.endpoint}}": "http://collector:4318", "{{inputs.parameters.image}}": ref})
		wantLines := "image=" + ref + "-otel\ntag=" + results["tag"] + "\ndigest=" + want + "\n"
		if out := w.run(t, args...); out != wantLines {
			t.Errorf("Argo's step prints\n%s\nwant\n%s", out, wantLines)
		}
	}

	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "images.yaml"), []byte(ref+"\n"+images[1].Reference+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	lister := readManifest(t, "tekton/pipeline.yaml", "Task", "imgwrap-list").Spec.Steps[0]
	results = w.script(t, lister, dir, map[string]string{"$(params.shards)": "3"})
	var shards []string
	if err := json.Unmarshal([]byte(results["shards"]), &shards); err != nil || !slices.Equal(shards, []string{"0/3", "1/3", "2/3"}) {
		t.Fatalf("shards %q, %v", results["shards"], err)
	}
	worker := readManifest(t, "tekton/pipeline.yaml", "Task", "imgwrap-shard").Spec.Steps[0]
	var wrapped []string
	for _, shard := range shards {
		args := replaceAll(worker.Args, map[string]string{"$(params.shard)": shard, "resolved.yaml": filepath.Join(dir, "resolved.yaml")})
		wrapped = append(wrapped, strings.Fields(w.run(t, args...))...)
	}
	if len(wrapped) != len(images) {
		t.Errorf("shards wrapped %s, want %d images", wrapped, len(images))
	}
}

// variable is one of a container's.
type variable struct{ Name, Value string }

// step is a container of a Pod, or a step of a task.
type step struct {
	Args         []string
	Script       string
	Env          []variable
	VolumeMounts []struct {
		Name      string
		MountPath string `yaml:"mountPath"`
		SubPath   string `yaml:"subPath"`
		ReadOnly  bool   `yaml:"readOnly"`
	} `yaml:"volumeMounts"`
}

// spec is what the tests above need of manifests.
type spec struct {
	Completions, Parallelism int
	Template                 struct {
		Spec struct{ Containers []step }
	}
	Templates []struct {
		Name      string
		Container step
	}
	Steps []step
}

type manifest struct {
	Kind     string
	Metadata struct{ Name string }
	Spec     spec
}

// readManifest returns one of the manifests of a file of the examples.
func readManifest(t *testing.T, file, kind, name string) manifest {
	t.Helper()
	f, err := os.Open(filepath.Join("../../docs/examples", file))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for d := yaml.NewDecoder(f); ; {
		var m manifest
		if err := d.Decode(&m); err != nil {
			t.Fatalf("looking for %s %s in %s: %v", kind, name, file, err)
		}
		if m.Kind == kind && m.Metadata.Name == name {
			return m
		}
	}
}

// replaceAll puts values into the place of what stands for them.
func replaceAll(args []string, values map[string]string) (replaced []string) {
	for _, arg := range args {
		for name, value := range values {
			arg = strings.ReplaceAll(arg, name, value)
		}
		replaced = append(replaced, arg)
	}
	return replaced
}

// pod runs a container of imgwrap's image, as the Dockerfile makes it and
// securityContext has it: as another user, with a root directory that is read-only.
// volumes are directories by name. It returns standard output.
func (w imgwrap) pod(t *testing.T, c step, volumes map[string]string, env ...variable) string {
	t.Helper()
	const user = 65532
	root := t.TempDir()
	script := "set -e\nmount --bind \"$root\" \"$root\"\n"
	mount := func(source, path string, readOnly bool) {
		target := filepath.Join(root, path)
		script += fmt.Sprintf("mount --bind '%s' '%s'\n", source, target)
		if readOnly {
			script += fmt.Sprintf("mount -o remount,bind,ro '%s'\n", target)
		}
	}
	const cache, program = "/var/cache/imgwrap", "/usr/local/bin/imgwrap"
	for _, dir := range []string{filepath.Dir(program), cache + "/layers"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Error(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, program), nil, 0o755); err != nil {
		t.Error(err)
	}
	mount(w.program, program, true)
	mount(filepath.Join(w.cache, "layers"), cache+"/layers", true)
	for _, m := range c.VolumeMounts {
		source := filepath.Join(volumes[m.Name], m.SubPath)
		for _, dir := range []string{source, filepath.Join(root, m.MountPath)} {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Error(err)
			}
		}
		if !m.ReadOnly {
			if err := os.Chown(source, user, user); err != nil {
				t.Error(err)
			}
		}
		mount(source, m.MountPath, m.ReadOnly)
	}
	script += "mount -o remount,bind,ro \"$root\"\n"
	script += fmt.Sprintf("exec chroot --userspec=%d:%d \"$root\" %s \"$@\"\n", user, user, program)
	env = append(slices.Clone(c.Env), env...)
	values := map[string]string{}
	for _, v := range env {
		values["$("+v.Name+")"] = v.Value
	}
	cmd := exec.CommandContext(t.Context(), "unshare", append([]string{"--mount", "--propagation=private", "sh", "-c", script, "pod"}, replaceAll(c.Args, values)...)...)
	cmd.Env = []string{"root=" + root, "PATH=" + os.Getenv("PATH"), "IMGWRAP_CACHE_DIR=" + cache}
	for _, v := range env {
		cmd.Env = append(cmd.Env, v.Name+"="+v.Value)
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Errorf("Pod with %v: %v\n%s", env, err, &stderr)
	}
	return stdout.String()
}

// script runs a step of Tekton's in a directory, and returns the results that it
// writes.
func (w imgwrap) script(t *testing.T, s step, dir string, values map[string]string) (results map[string]string) {
	t.Helper()
	out := t.TempDir()
	text := regexp.MustCompile(`\$\(results\.(\w+)\.path\)`).ReplaceAllString(s.Script, filepath.Join(out, "$1"))
	var args []string
	for _, arg := range s.Args {
		if arg != "$(params.args[*])" { // which has none
			args = append(args, replaceAll([]string{arg}, values)...)
		}
	}
	cmd := exec.CommandContext(t.Context(), "sh", append([]string{"-c", text, "script"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "IMGWRAP_CACHE_DIR="+w.cache, "PATH="+filepath.Dir(w.program)+":"+os.Getenv("PATH"))
	for _, v := range s.Env {
		// Of a workspace that there is not, the path is empty.
		value := replaceAll([]string{v.Value}, values)[0]
		cmd.Env = append(cmd.Env, v.Name+"="+strings.ReplaceAll(value, "$(workspaces.dockerconfig.path)", ""))
	}
	outputOf(t, cmd)
	results = map[string]string{}
	files, err := os.ReadDir(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		content, err := os.ReadFile(filepath.Join(out, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		results[f.Name()] = string(content)
	}
	return results
}
