// Runs a declarative Jenkinsfile by Groovy 2.4, the language of Jenkins itself, on this
// machine: run.groovy CHECKOUT VARS JENKINSFILE OUT [NAME=VALUE...]
//
// Each agent has a workspace with a copy of CHECKOUT. VARS has the global variables
// of a shared library. OUT gets what Jenkins would keep. NAME=VALUE are parameters.
// It knows the directives and steps that docs/ci uses, as Jenkins defines them, and
// refuses all others.
import groovy.transform.Field

@Field File checkout, vars, out
(checkout, vars, out) = [args[0], args[1], args[3]].collect { new File(it).absoluteFile }
@Field Map given
given = args.drop(4).collectEntries { it.split('=', 2) as List }

/** Runs what is in braces with a section that decides what may be there. */
def within(section, Closure body) {
    body = body.clone()
    body.delegate = section
    body.resolveStrategy = Closure.DELEGATE_ONLY
    body()
    return section
}

/** What one branch of a pipeline runs in. */
class Context {
    File workspace
    Map env = [:]
    Context copy() { new Context(workspace: workspace, env: [:] + env) }
}

class Section {
    def main
    Context context
    def inside(section, Closure body) { main.within(section, body) }
    def propertyMissing(String name) {
        if (context?.env?.containsKey(name)) return context.env[name]
        throw new MissingPropertyException(name, getClass())
    }
}

/** What pipelines and stages may both have. */
class Block extends Section {
    List after = []
    String getNone() { 'none' }
    void agent(String none) { assert none == 'none' }
    void agent(Closure body) {
        inside(new Agent(main: main), body)
        context.workspace = main.newWorkspace()
    }
    void environment(Closure body) { inside(new Environment(main: main, context: context), body) }
    void post(Closure body) { after << body }
    void finish(boolean success) {
        after.each { inside(new Post(main: main, context: context, success: success), it) }
    }
}

class Pipeline extends Block {
    Closure stages
    void options(Closure body) { inside(new Options(main: main), body) }
    void triggers(Closure body) { inside(new Triggers(main: main), body) }
    void parameters(Closure body) { inside(new Parameters(main: main, context: context), body) }
    void stages(Closure body) { stages = body }
}

class Agent extends Section {
    void label(String name) {}
    void docker(Closure body) { inside(new Docker(main: main), body) }
}

class Docker extends Section {
    void image(String name) {}
    void args(String flags) {}
}

class Options extends Section {
    void disableConcurrentBuilds() {}
    void timeout(Map m) { assert m.keySet() == ['time', 'unit'] as Set }
}

class Triggers extends Section {
    void cron(String when) {}
}

class Parameters extends Section {
    void string(Map m) {
        assert m.name && m.keySet() - ['name', 'defaultValue', 'description'] == [] as Set
        context.env[m.name] = main.given.getOrDefault(m.name, m.defaultValue)
    }
}

class Environment extends Section {
    String credentials(String id) {
        assert context.workspace : 'secret files need an agent'
        return main.given['credentials.' + id]
    }
    void propertyMissing(String name, value) { context.env[name] = value.toString() }
}

class Stages extends Section {
    void stage(String name, Closure body) {
        println "stage $name"
        def stage = inside(new Stage(main: main, context: context.copy()), body)
        if (stage.run) stage.runAll()
    }
}

class Stage extends Block {
    Closure steps, stages, matrix
    boolean run = true
    void when(Closure body) { run = inside(new When(main: main), body).met }
    void steps(Closure body) { steps = body }
    void stages(Closure body) { stages = body }
    void matrix(Closure body) { matrix = body }
    void runAll() {
        assert [steps, stages, matrix].count { it } == 1
        boolean success = false
        try {
            if (steps) inside(new Steps(main: main, context: context), steps)
            if (stages) inside(new Stages(main: main, context: context), stages)
            if (matrix) inside(new Matrix(main: main, context: context), matrix).runAll()
            success = true
        } finally {
            finish(success)
        }
    }
}

class When extends Section {
    boolean met
    void changeRequest() { met = main.given.CHANGE_ID != null }
}

class Matrix extends Section {
    Closure environment, stages
    String name
    List values
    void agent(Closure body) { inside(new Agent(main: main), body) }
    void environment(Closure body) { environment = body }
    void axes(Closure body) { inside(this, body) }
    void axis(Closure body) { inside(this, body) }
    void name(String s) { name = s }
    void values(Object... all) { values = all as List }
    void stages(Closure body) { stages = body }
    void runAll() {
        values.each {
            def cell = new Context(workspace: main.newWorkspace(), env: context.env + [(name): it])
            if (environment) inside(new Environment(main: main, context: cell), environment)
            inside(new Stages(main: main, context: cell), stages)
        }
    }
}

class Post extends Section {
    boolean success
    void always(Closure body) { inside(new Steps(main: main, context: context), body) }
    void success(Closure body) { if (success) always(body) }
}

class Steps extends Section {
    def sh(String script) { sh(script: script) }
    def sh(Map m) {
        assert m.keySet() - ['script', 'label', 'returnStdout'] == [] as Set
        def builder = new ProcessBuilder('sh', '-xe', '-c', m.script).directory(context.workspace)
        builder.environment().putAll(context.env)
        builder.redirectError(ProcessBuilder.Redirect.INHERIT)
        def process = builder.start()
        String stdout = process.inputStream.text
        if (process.waitFor() != 0) throw new RuntimeException("script returned exit code ${process.exitValue()}")
        if (m.returnStdout) return stdout
        print stdout
    }
    void echo(String text) { println text }
    void script(Closure body) { inside(this, body) }
    void stash(Map m) {
        assert m.keySet() == ['name', 'includes'] as Set
        keep('stash/' + m.name, m.includes, false)
    }
    void unstash(String name) { main.copy(new File(main.out, 'stash/' + name), context.workspace) }
    void archiveArtifacts(Map m) {
        assert m.keySet() - ['artifacts', 'fingerprint', 'allowEmptyArchive'] == [] as Set
        keep('archive', m.artifacts, m.allowEmptyArchive ?: false)
    }
    void junit(Map m) {
        assert m.keySet() - ['testResults', 'allowEmptyResults'] == [] as Set
        keep('junit', m.testResults, m.allowEmptyResults ?: false)
    }
    private void keep(String where, String names, boolean none) {
        def files = names.split(', *').collect { new File(context.workspace, it) }.findAll { it.exists() }
        if (!files && !none) throw new RuntimeException("no $names")
        files.each { main.copy(it, new File(main.out, where)) }
    }
    /** A global variable of the shared library. */
    def methodMissing(String name, args) {
        def file = new File(main.vars, "${name}.groovy")
        if (!file.exists()) throw new MissingMethodException(name, getClass(), args)
        def binding = new Binding(sh: this.&sh, archiveArtifacts: this.&archiveArtifacts)
        return new GroovyShell(binding).parse(file).call(*args)
    }
}

@Field int workspaces = 0

File newWorkspace() {
    def dir = new File(out, "workspace/${++workspaces}")
    copy(checkout, dir)
    return dir
}

/** Copies a file, or all that is in a directory, into a directory. */
void copy(File from, File to) {
    to.mkdirs()
    def process = ['cp', '-R', from.directory ? "$from/." : "$from", "$to"]*.toString().execute()
    assert process.waitFor() == 0 : process.err.text
}

def binding = new Binding(pipeline: { Closure body ->
    def p = within(new Pipeline(main: this, context: new Context()), body)
    boolean success = false
    try {
        within(new Stages(main: this, context: p.context), p.stages)
        success = true
    } finally {
        p.finish(success)
    }
})
new GroovyShell(getClass().classLoader, binding).evaluate(new File(args[2]))
