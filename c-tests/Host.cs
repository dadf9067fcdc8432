// A host in C#: P/Invoke by the header's rules, text streamed through a delegate, the profile as structures.
// usage: mono Host.exe MODEL.gguf
using System;
using System.Collections.Generic;
using System.IO;
using System.Runtime.InteropServices;
using System.Text;

static class Native
{
    const string Lib = "libsmallmind.so.0";

    public const int Ok = 0;
    public const int Io = 20;
    public const int StopCallback = 2;

    [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
    public delegate int TextCallback(IntPtr userData, uint token, IntPtr text, UIntPtr bytes);

    [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
    public delegate int ProgressCallback(IntPtr userData, float fraction);

    [StructLayout(LayoutKind.Sequential)]
    public struct ModelParams
    {
        public UIntPtr StructSize;
        public ProgressCallback Progress;
        public IntPtr UserData;
        public IntPtr Isa;
        public int MemoryMap;
        public int ActivationBits;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct ModelInfo
    {
        public IntPtr Name, Architecture, Isa;
        public ulong Parameters, WeightBytes, Vocabulary, TrainedContext, Layers, Width;
        public ulong Heads, HeadsKv, HeadDim, Ff;
        public int HasTokenizer, HasChatTemplate;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct ContextParams
    {
        public UIntPtr StructSize, Context, Batch, Output, Threads;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct SamplerParams
    {
        public UIntPtr StructSize;
        public ulong Seed;
        public UIntPtr TopK, PenaltyLastN;
        public float Temperature, TopP, MinP, RepetitionPenalty, FrequencyPenalty, PresencePenalty;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct GenerateParams
    {
        public UIntPtr StructSize, MaxTokens;
        public TextCallback OnText;
        public IntPtr UserData;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct Summary
    {
        public ulong Prompt, Generated;
        public double PrefillSeconds, DecodeSeconds, PrefillRate, DecodeRate;
        public int StopReason;
        public uint LastToken;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct Message
    {
        public IntPtr Role, Content;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct MethodStats
    {
        public IntPtr Name;
        public long Parent;
        public ulong Depth, Calls, Threads, Total, Busiest, Self, Min, Mean, Max, Std, P50, P95, P99;
        public ulong Flops, Bytes, AllocBytes, AllocCount;
        public double Gflops, Gbps;
        public ulong Cpu, Idle, SelfAllocBytes, PeakBytes;
        public double Intensity, RoofShare;
    }

    [DllImport(Lib)] public static extern uint sm_abi_version();
    [DllImport(Lib)] public static extern IntPtr sm_version();
    [DllImport(Lib)] public static extern IntPtr sm_status_name(int status);
    [DllImport(Lib)] public static extern IntPtr sm_last_error();
    [DllImport(Lib)] public static extern int sm_model_params_init(ref ModelParams p, UIntPtr size);
    [DllImport(Lib)] public static extern int sm_model_load(byte[] path, ref ModelParams p, out IntPtr model);
    [DllImport(Lib)] public static extern int sm_model_describe(IntPtr model, out ModelInfo info, UIntPtr size);
    [DllImport(Lib)] public static extern int sm_model_free(IntPtr model);
    [DllImport(Lib)] public static extern int sm_chat_apply(IntPtr model, Message[] messages, UIntPtr stride,
        UIntPtr count, int addGenerationPrompt, byte[] text, UIntPtr capacity, out UIntPtr length);
    [DllImport(Lib)] public static extern int sm_tokenize(IntPtr model, byte[] text, UIntPtr bytes, int addSpecial,
        int parseSpecial, uint[] tokens, UIntPtr capacity, out UIntPtr count);
    [DllImport(Lib)] public static extern int sm_context_params_init(ref ContextParams p, UIntPtr size);
    [DllImport(Lib)] public static extern int sm_context_create(IntPtr model, ref ContextParams p, out IntPtr context);
    [DllImport(Lib)] public static extern int sm_context_free(IntPtr context);
    [DllImport(Lib)] public static extern int sm_context_clear(IntPtr context);
    [DllImport(Lib)] public static extern int sm_sampler_params_init(ref SamplerParams p, UIntPtr size);
    [DllImport(Lib)] public static extern int sm_sampler_create(IntPtr model, ref SamplerParams p, out IntPtr sampler);
    [DllImport(Lib)] public static extern int sm_sampler_free(IntPtr sampler);
    [DllImport(Lib)] public static extern int sm_generate_params_init(ref GenerateParams p, UIntPtr size);
    [DllImport(Lib)] public static extern int sm_generate(IntPtr context, IntPtr sampler, uint[] prompt,
        UIntPtr count, ref GenerateParams p, out Summary summary, UIntPtr size);
    [DllImport(Lib)] public static extern int sm_profile_enable(int on);
    [DllImport(Lib)] public static extern int sm_profile_snapshot([Out] MethodStats[] stats, UIntPtr stride,
        UIntPtr capacity, out UIntPtr count);
    [DllImport(Lib)] public static extern int sm_softmax_f32(UIntPtr rows, UIntPtr cols, float[] x, UIntPtr ldx,
        [Out] float[] y, UIntPtr ldy);
}

static class Host
{
    static UIntPtr Size(int n) { return (UIntPtr)(ulong)n; }
    static UIntPtr SizeOf<T>() { return Size(Marshal.SizeOf(typeof(T))); }

    static string Text(IntPtr utf8)
    {
        int length = 0;
        while (Marshal.ReadByte(utf8, length) != 0) length++;
        return Text(utf8, length);
    }

    static string Text(IntPtr utf8, int length)
    {
        var bytes = new byte[length];
        Marshal.Copy(utf8, bytes, 0, length);
        return Encoding.UTF8.GetString(bytes);
    }

    static byte[] Utf8(string text) { return Encoding.UTF8.GetBytes(text + "\0"); }

    static void Check(int status)
    {
        if (status != Native.Ok)
            throw new InvalidOperationException(
                Text(Native.sm_status_name(status)) + ": " + Text(Native.sm_last_error()));
    }

    static void Require(bool condition, string what)
    {
        if (!condition) throw new InvalidOperationException("does not hold: " + what);
    }

    static IntPtr Load(string path, out float progress)
    {
        float last = 0;
        Native.ProgressCallback onProgress = (data, fraction) => { last = fraction; return 0; };
        var p = new Native.ModelParams();
        Check(Native.sm_model_params_init(ref p, SizeOf<Native.ModelParams>()));
        p.Progress = onProgress;
        IntPtr model;
        Check(Native.sm_model_load(Utf8(path), ref p, out model));
        GC.KeepAlive(onProgress);
        progress = last;
        return model;
    }

    static uint[] Prompt(IntPtr model, string question)
    {
        IntPtr role = Marshal.AllocHGlobal(64), content = Marshal.AllocHGlobal(4096);
        try
        {
            byte[] roleBytes = Utf8("user"), contentBytes = Utf8(question);
            Marshal.Copy(roleBytes, 0, role, roleBytes.Length);
            Marshal.Copy(contentBytes, 0, content, contentBytes.Length);
            var messages = new[] { new Native.Message { Role = role, Content = content } };
            var text = new byte[8192];
            UIntPtr length, count;
            Check(Native.sm_chat_apply(model, messages, SizeOf<Native.Message>(), Size(1), 1, text,
                Size(text.Length), out length));
            Check(Native.sm_tokenize(model, text, length, 0, 1, null, Size(0), out count));
            var tokens = new uint[(int)count];
            Check(Native.sm_tokenize(model, text, length, 0, 1, tokens, Size(tokens.Length), out count));
            return tokens;
        }
        finally
        {
            Marshal.FreeHGlobal(role);
            Marshal.FreeHGlobal(content);
        }
    }

    // Streams an answer to the console; stops after that many tokens, by its own will, where it is not 0.
    static Native.Summary Generate(IntPtr context, IntPtr sampler, uint[] prompt, int stopAfter, out string answer)
    {
        var whole = new StringBuilder();
        int calls = 0;
        Native.TextCallback onText = (data, token, text, bytes) =>
        {
            string piece = Text(text, (int)bytes);
            whole.Append(piece);
            Console.Write(piece);
            Console.Out.Flush();
            return stopAfter != 0 && ++calls >= stopAfter ? 1 : 0;
        };
        var p = new Native.GenerateParams();
        Check(Native.sm_generate_params_init(ref p, SizeOf<Native.GenerateParams>()));
        p.MaxTokens = Size(48);
        p.OnText = onText;
        Native.Summary summary;
        Check(Native.sm_generate(context, sampler, prompt, Size(prompt.Length), ref p, out summary,
            SizeOf<Native.Summary>()));
        GC.KeepAlive(onText);
        Console.WriteLine();
        answer = whole.ToString();
        return summary;
    }

    static void PrintProfile()
    {
        UIntPtr count;
        Check(Native.sm_profile_snapshot(null, SizeOf<Native.MethodStats>(), Size(0), out count));
        var stats = new Native.MethodStats[(int)count];
        Check(Native.sm_profile_snapshot(stats, SizeOf<Native.MethodStats>(), count, out count));
        Console.WriteLine("\n{0,-30} {1,8} {2,11} {3,11} {4,12} {5,8}", "method", "calls", "total ms", "self ms",
            "alloc bytes", "GFLOPS");
        var names = new HashSet<string>();
        foreach (var s in stats)
        {
            string name = Text(s.Name);
            names.Add(name);
            Console.WriteLine("{0,-30} {1,8} {2,11:F3} {3,11:F3} {4,12} {5,8:F2}",
                new string(' ', 2 * (int)s.Depth) + name, s.Calls, s.Total / 1e6, s.Self / 1e6, s.AllocBytes,
                s.Gflops);
            Require(s.Calls > 0 && s.Self <= s.Total, "the figures of " + name);
        }
        foreach (var name in new[] { "load", "tokenize", "prefill", "decode", "sample" })
            Require(names.Contains(name), "a row for " + name);
    }

    static void Softmax()
    {
        var y = new float[3];
        Check(Native.sm_softmax_f32(Size(1), Size(3), new float[] { 1, 2, 3 }, Size(3), y, Size(3)));
        Require(Math.Abs(y[2] - 0.6652409557748218) < 1e-6, "a known softmax");
    }

    static void Run(string path)
    {
        Require(Native.sm_abi_version() == 1, "the ABI this host was written for");
        Console.WriteLine("libsmallmind " + Text(Native.sm_version()));
        Softmax();
        var missing = new Native.ModelParams();
        Check(Native.sm_model_params_init(ref missing, SizeOf<Native.ModelParams>()));
        IntPtr none;
        Require(Native.sm_model_load(Utf8("/no/such/file"), ref missing, out none) == Native.Io
            && none == IntPtr.Zero && Text(Native.sm_last_error()).Contains("/no/such/file"), "a missing file");

        Check(Native.sm_profile_enable(1));
        float progress;
        IntPtr model = Load(path, out progress);
        Require(progress == 1.0f, "progress to the end");
        Native.ModelInfo info;
        Check(Native.sm_model_describe(model, out info, SizeOf<Native.ModelInfo>()));
        Console.WriteLine("{0}, {1}, {2} layers, {3} parameters", Text(info.Name), Text(info.Architecture),
            info.Layers, info.Parameters);

        var contextParams = new Native.ContextParams();
        Check(Native.sm_context_params_init(ref contextParams, SizeOf<Native.ContextParams>()));
        contextParams.Context = Size(512);
        IntPtr context, sampler;
        Check(Native.sm_context_create(model, ref contextParams, out context));
        var samplerParams = new Native.SamplerParams();
        Check(Native.sm_sampler_params_init(ref samplerParams, SizeOf<Native.SamplerParams>()));
        samplerParams.Temperature = 0;
        Check(Native.sm_sampler_create(model, ref samplerParams, out sampler));

        uint[] prompt = Prompt(model, "What is the capital of France? Answer na\u00efvely.");
        string answer, beginning;
        var summary = Generate(context, sampler, prompt, 0, out answer);
        Console.WriteLine("prefill {0:F1} tokens/s, decode {1:F1} tokens/s", summary.PrefillRate, summary.DecodeRate);
        Require(answer.Length > 0 && summary.Prompt == (ulong)prompt.Length, "an answer");
        Check(Native.sm_context_clear(context));
        summary = Generate(context, sampler, prompt, 2, out beginning);
        Require(summary.StopReason == Native.StopCallback && answer.StartsWith(beginning), "a stop by the callback");

        Check(Native.sm_profile_enable(0));
        PrintProfile();
        Check(Native.sm_sampler_free(sampler));
        Check(Native.sm_context_free(context));
        Check(Native.sm_model_free(model));
    }

    static int Main(string[] args)
    {
        if (args.Length != 1)
        {
            Console.Error.WriteLine("usage: mono Host.exe MODEL.gguf");
            return 2;
        }
        try
        {
            Run(args[0]);
            return 0;
        }
        catch (Exception error)
        {
            Console.Error.WriteLine("Host.exe: " + error.Message);
            return 1;
        }
    }
}
